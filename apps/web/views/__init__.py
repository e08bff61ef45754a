"""What the app answers: values in, pictures, figures and tables out; no Gradio, no page state.

One file per tab, and `judged_image.py`, an image as a run judges it, which several of them show. A
run is named by its folder. Bad input is a ValueError of one sentence.
"""
