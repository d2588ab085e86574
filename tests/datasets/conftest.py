import importlib.util
import sys
from pathlib import Path

# tests are imported by path (importlib mode): the shared sounds become a plain module
spec = importlib.util.spec_from_file_location("sounds", Path(__file__).with_name("sounds.py"))
sys.modules["sounds"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["sounds"])
