"""The app: trained runs in a browser. `app.py` lays out and wires, `views.py` answers."""
