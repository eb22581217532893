"""Many records side by side: backbones x tasks, their ranks, and what is missing."""

from siamtransfer.leaderboard.boards import Board, Cell, board
from siamtransfer.leaderboard.collection import Collection, collect, collect_all
from siamtransfer.leaderboard.columns import Column
from siamtransfer.leaderboard.measurement import BackboneId, Measurement
from siamtransfer.leaderboard.missing import Missing
from siamtransfer.leaderboard.ranking import OverallPair, OverallPlace, PairTest, Place, Ranking, rank

__all__ = [
    "BackboneId",
    "Board",
    "Cell",
    "Collection",
    "Column",
    "Measurement",
    "Missing",
    "OverallPair",
    "OverallPlace",
    "PairTest",
    "Place",
    "Ranking",
    "board",
    "collect",
    "collect_all",
    "rank",
]
