"""Races against peers (`flows`), devices (`gpu`) and damaged input (`faults`)."""
