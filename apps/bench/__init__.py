"""Races against peers: metrics of maps (`maps`) and whole flow methods (`flows`)."""
