"""An experiment from config to a stored run."""
