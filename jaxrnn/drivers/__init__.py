"""How time is crossed, a file each."""

from .bptt import BPTT as BPTT
from .driver import Driver as Driver
from .loop import Loop as Loop
from .scan import Remat as Remat
from .scan import Scan as Scan
