"""How the page looks: system fonts, colours by role, one style sheet; nothing from elsewhere."""

from importlib import resources

import gradio as gr

from labkit.figures import style


def css() -> str:
    """The style sheet, with the palette's colours as variables."""
    colours = {"good": style.NORMAL, "bad": style.ANOMALOUS, "threshold": style.THRESHOLD}
    named = "; ".join(f"--lk-{role}: {colour}" for role, colour in colours.items())
    return f":root {{{named}}}\n{static('labkit.css')}"


def static(name: str) -> str:
    """A text file that comes with the app."""
    return (resources.files("labkit_apps.web") / "static" / name).read_text(encoding="utf-8")


def theme() -> gr.themes.Base:
    """System fonts only, so that nothing is fetched from elsewhere."""
    fonts = [gr.themes.Font(name) for name in ("system-ui", "Segoe UI", "Roboto", "sans-serif")]
    mono = [gr.themes.Font(name) for name in ("ui-monospace", "Consolas", "monospace")]
    base = gr.themes.Default(primary_hue="sky", neutral_hue="slate", font=fonts, font_mono=mono)
    return base.set(slider_color=style.NORMAL, body_text_color_subdued="*neutral_500",
                    button_primary_background_fill=style.NORMAL,
                    button_primary_background_fill_dark=style.NORMAL,
                    button_primary_text_color="white",
                    checkbox_border_color_dark="*neutral_400")  # fmt: skip
