"""What the fork server of a suite does before it imports the libraries; only the server imports this module.

The kernel ends the server with the suite, also where it is still importing; other signals do not reach it
(see `cell_process`).
"""

from __future__ import annotations

import os
import signal

from siamtransfer.utils.children import end_with_parent

end_with_parent(signal.SIGKILL, int(os.environ.pop("SIAMTRANSFER_SUITE", os.getppid())))
