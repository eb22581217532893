"""The formats of Lightning modules of lightly-train and stable-pretraining."""

from __future__ import annotations

from siamtransfer.checkpoints.file_format import Branch, Format
from siamtransfer.checkpoints.layouts import official

_LIGHTLY_HEADS = {
    **{f"{word}projection_head.": "projector" for word in ("", "student_", "teacher_")},
    **{f"{word}_{head}_head.": "projector" for word in ("student", "teacher") for head in ("dino", "ibot")},
    **{f"{word}_encoder.": "projector" for word in ("query", "key")},
    **dict.fromkeys(
        ("criterion.", "local_criterion.", "global_criterion.", "dino_loss.", "ibot_loss."), "loss"
    ),
    **dict.fromkeys(("memory_bank.", "teacher_queue"), "queue"),
}

TRAINER_FORMATS: tuple[Format, ...] = (
    *(
        Format(
            "lightly-train",
            f"lightly-train, {what}",
            {name: Branch(f"{prefix}_model.", head="classifier") for name, prefix in places.items()},
            drops={
                **_LIGHTLY_HEADS,
                **{
                    f"{prefix.removesuffix('wrapped_model.')}embed_head.": "projector"
                    for prefix in places.values()
                },
            },
            marks=("|".join(f"{prefix}_model." for prefix in places.values()),),
            convert=official.to_timm,
        )
        for what, places in (
            (
                "a training with a student and a teacher",
                {
                    "teacher": "teacher_embedding_model.wrapped_model.",
                    "student": "student_embedding_model.wrapped_model.",
                },
            ),
            (
                "a training of DINOv2",
                {
                    "teacher": "teacher_embedding_model_wrapper.",
                    "student": "student_embedding_model_wrapper.",
                },
            ),
            (
                "a training of DenseCL",
                {
                    "query": "query_encoder.embedding_model.wrapped_model.",
                    "key": "key_encoder.embedding_model.wrapped_model.",
                },
            ),
            ("a training of SimCLR", {"model": "embedding_model.wrapped_model."}),
            ("an exported embedding model", {"model": "wrapped_model."}),
        )
    ),
    *(
        Format(
            "stable-pretraining",
            f"stable-pretraining, {what}",
            {name: Branch(prefix, head="classifier") for name, prefix in places.items()},
            drops={
                **dict.fromkeys(("callbacks_modules.", "callbacks_metrics."), "callbacks"),
                **dict.fromkeys(("projector.", "projection_head."), "projector"),
                **dict.fromkeys(("predictor.", "classifier.", "head."), "head"),
                **dict.fromkeys(("simclr_loss.", "loss.", "loss_fn."), "loss"),
            },
            marks=("|".join(places.values()), "callbacks_modules.|callbacks_metrics."),
            convert=official.to_timm,
        )
        for what, places in (
            ("a teacher and a student", {"teacher": "backbone.teacher.", "student": "backbone.student."}),
            ("a backbone", {"backbone": "backbone."}),
        )
    ),
)
