import importlib.util
import sys
from pathlib import Path

# tests are imported by path (importlib mode): the sounds of the data tests become a plain module here, too
spec = importlib.util.spec_from_file_location("sounds", Path(__file__).parents[2] / "datasets" / "sounds.py")
sys.modules["sounds"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["sounds"])
