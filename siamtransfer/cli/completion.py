"""Shell completion: program names, option names, shipped configurations."""

from __future__ import annotations

from siamtransfer.cli.shipped import shipped_configs

SHELLS = ("bash", "zsh", "fish")

_BASH = """_siamtransfer() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} words=""
  if [ "$COMP_CWORD" -eq 1 ]; then words="{programs} configs completion --help --version"
  elif [ "$before" = --config ]; then words="{configs}"; compopt -o default 2>/dev/null
  elif [ "${{current:0:1}}" = - ]; then
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
  else compopt -o default 2>/dev/null; COMPREPLY=(); return
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -F _siamtransfer siamtransfer"""


def completion_script(shell: str, flags: dict[str, list[str]]) -> str:
    """The script that teaches `shell` the programs and their `flags`."""
    configs = sorted({name.rpartition("/")[2] for name in shipped_configs()})
    if shell == "fish":
        lines = ["complete -c siamtransfer -f -n __fish_use_subcommand -a '" + " ".join(flags) + "'"]
        for name, own in flags.items():
            seen = f"__fish_seen_subcommand_from {name}"
            lines += [f"complete -c siamtransfer -n '{seen}' -l '{flag.lstrip('-')}'" for flag in own]
            lines.append(f"complete -c siamtransfer -n '{seen}' -l config -x -a '{' '.join(configs)}'")
        return "\n".join(lines)
    cases = "\n".join(
        f'      {name}) words="{" ".join(own)} --config --help --help-all" ;;' for name, own in flags.items()
    )
    script = _BASH.format(programs=" ".join(flags), configs=" ".join(configs), cases=cases)
    return script if shell == "bash" else f"autoload -Uz bashcompinit && bashcompinit\n{script}"
