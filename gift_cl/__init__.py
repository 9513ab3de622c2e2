"""gift-cl: a memory of distilled exemplars, labelled by a teacher, rehearsed with the GIFT loss."""

from gift_cl.dataset import DistilledDataset as DistilledDataset
from gift_cl.dataset import Provenance as Provenance
from gift_cl.dataset_file import load_dataset as load_dataset
from gift_cl.dataset_file import open_dataset as open_dataset
from gift_cl.dataset_file import save_dataset as save_dataset
from gift_cl.errors import DamagedFileError as DamagedFileError
from gift_cl.errors import LayoutError as LayoutError
from gift_cl.errors import ReadError as ReadError
from gift_cl.errors import UnsafeFileError as UnsafeFileError
from gift_cl.ledger import BudgetError as BudgetError
from gift_cl.ledger import Ledger as Ledger
from gift_cl.losses import GIFTLoss as GIFTLoss
from gift_cl.losses import gift_loss as gift_loss
from gift_cl.losses import refine_labels as refine_labels
from gift_cl.memory import ExemplarMemory as ExemplarMemory
from gift_cl.normalization import Normalization as Normalization
from gift_cl.rehearsal import Rehearsal as Rehearsal
from gift_cl.teacher import Teacher as Teacher
from gift_cl.teacher import UnseenClassError as UnseenClassError

__version__ = "0.1.0"
