"""What the tab of training shows and takes: the checked order, its cost, and its progress."""

import importlib.util

import pandas as pd
from matplotlib.figure import Figure

from labkit import methods
from labkit.features import backbones
from labkit.figures import style, training_curves
from labkit_apps.web import markup
from labkit_apps.web.forecast import duration
from labkit_apps.web.shelf import data_name
from labkit_apps.web.trainer import Order, Trainer, Training
from labkit_apps.web.views import train_data

CHOSEN = {"backbone": "is chosen above", "devices": "is always one here"}
PHASES = {
    "waiting": "Waiting",
    "measuring": "Timing a few steps",
    "reading": "Reading the images",
    "fitting": "Training",
    "scoring": "Scoring the test images",
    "done": "Trained",
    "failed": "No run",
}
IDLE = (
    "Nothing is being trained. Choose data and a method; the estimate costs a few seconds and "
    "trains nothing."
)


def method_choices() -> list[tuple[str, str]]:
    """Label and name of each method."""
    return [(f"{name} · {methods.get(name).title}", name) for name in methods.names()]


def backbone_choices() -> list[tuple[str, str]]:
    """Label and name of the backbones whose weights are installed; empty: what the budget says."""
    here = [
        name for name, (package, *_) in backbones.OFFLINE.items()
        if importlib.util.find_spec(package)
    ]  # fmt: skip
    return [("as the budget says", ""), *((name, name) for name in here)]


def order(
    trainer: Trainer, data: str, method: str, budget: str, seed: float, backbone: str, text: str
) -> Order:  # fmt: skip
    """What a visitor asks for, once all of it is known to fit.

    Raises: ValueError naming what does not: the data, the method, a key or its value.
    """
    settings: dict[str, str] = {"backbone": backbone} if backbone else {}
    for word in (text or "").replace("--set", " ").split():
        key, equals, value = word.partition("=")
        if not (key and equals and value):
            raise ValueError(f"{word!r} is no setting; write them as blocks=4 lr=1e-4.")
        if key in CHOSEN:
            raise ValueError(f"{key} cannot be set here: it {CHOSEN[key]}.")
        settings[key] = value
    if seed is None or not 0 <= seed < 2**31 or seed != int(seed):
        raise ValueError(f"The seed {seed} does not fit; give a whole number from 0 on.")
    place = train_data.allowed((data or "").strip(), trainer.folder, trainer.root)
    asked = Order(method, place, budget, int(seed), settings)
    trainer.allowance.check(asked.config)
    return asked


def draw_cost(trainer: Trainer, asked: Order) -> str:
    """What the training should take, from a few steps timed now (HTML)."""
    plan = trainer.forecast(asked)
    epochs, images = len(plan.epochs), plan.images
    rows = [
        ("all together", f"about {duration(plan.seconds)}", "on this machine, as busy as it is"),
        ("features", duration(plan.features), f"{plan.new} of {sum(images.values())} images are "
         "new to the backbone"),
        ("training", duration(sum(plan.epochs)), f"{epochs} epoch{'s' * (epochs > 1)} of "
         f"{duration(sum(plan.epochs) / epochs)}" if epochs else "nothing is trained by gradient"),
        ("evaluation", duration(plan.scoring), "metrics come on top"),
        ("images", f"{images['train']}", f"to train on, {images['calibration']} held out, "
         f"{images['test']} to test"),
        ("parameters", f"{plan.parameters:,}", "trained"),
    ]  # fmt: skip
    caption = f"{asked.method} on {data_name(asked.data)}, {asked.budget} budget"
    return markup.table(rows, caption=caption, role="lk-numbers")


def draw_state(job: Training | None, ahead: int) -> str:
    """How far a training is, and what is left of it (HTML)."""
    if job is None:
        return markup.message(IDLE)
    words, role = PHASES[job.phase], {"done": "lk-good", "failed": "lk-bad"}.get(job.phase, "")
    if job.active and job.stopping:
        words = "Stopping"
    order, left = job.order, job.left()
    name = " · ".join((order.method, data_name(order.data), order.budget, f"seed {order.seed}"))
    share = 'aria-label="time"'  # without a value the bar only pulses
    parts = [_progress(job, ahead), *(_likelihood(job) if job.active else [])]
    if left is not None:
        parts.append(f"about {duration(left)} left")
        share += f' max="1" value="{job.seconds / max(job.seconds + left, 1e-9):.4f}"'
    bar = f'<progress class="lk-time" {share}></progress>' if job.active else ""
    return (
        f'<section class="lk-card lk-job {role}" data-phase="{job.phase}"><div class="lk-head">'
        f'<h2>{markup.text(words)}</h2><p class="lk-name">{markup.text(name)}</p>'
        f"<p>{markup.text('; '.join(filter(None, parts)))}</p>{bar}</div>{_numbers(job)}</section>"
    )


def draw_curve(job: Training | None) -> Figure | None:
    """The loss of the epochs that are done, if there are any."""
    if job is None or not job.history:
        return None
    spec = job.order.config
    parts = (data_name(spec.data), spec.input.backbone, spec.budget, spec.seed)
    note = f"{spec.method} · {style.caption(*parts)}"
    figure = training_curves(pd.DataFrame(job.history), note=note)
    for ax in figure.axes:
        ax.set_xlim(0.5, job.epochs + 0.5)  # with the room of the epochs to come
    return figure


def facts(job: Training | None) -> dict[str, object]:
    """How far a training is, for a program."""
    if job is None:
        return {"phase": None}
    return {
        "number": job.number, "phase": job.phase, "epochs": len(job.history),
        "planned": job.epochs, "seconds_left": job.left(), "words": job.words,
        "run": job.run.folder.name if job.run else None, "history": job.history,
    }  # fmt: skip


def _progress(job: Training, ahead: int) -> str:
    """One sentence on where the training stands."""
    done = f"epoch {len(job.history)} of {job.epochs} done" if job.epochs else ""
    if job.phase == "waiting":
        return f"number {ahead + 1} in the queue, one is trained at a time"
    if job.phase == "failed":
        return job.words
    if job.phase == "done":
        stopped = job.run.info.get("stopped", "")
        return f"{stopped or 'finished'}, in {duration(job.seconds)}"
    if job.stopping:
        return f"{done}, the last whole epoch becomes the run" if done else "after this step"
    count = sum(job.forecast.images.values()) if job.forecast else "all"
    reading = f"{count} images through the backbone"
    words = {"reading": reading, "fitting": done, "scoring": "training is done"}
    return words.get(job.phase, "")


def _likelihood(job: Training) -> list[str]:
    """How likely the images are by now, if a flow is trained and good images are held out."""
    row = job.history[-1] if job.history else {}
    if row.get("held_out_nats") is None:
        return []
    first, unit = row["first_step_held_out_nats"], "nats per dimension"
    return [
        f"−log p of held-out good images {row['held_out_nats']:.2f} {unit} (first step alone "
        f"{first:.2f}), of training images {row['train_nats']:.2f}"
    ]


def _numbers(job: Training) -> str:
    """The finished run's first metrics, and the link that opens it."""
    if job.run is None:
        return ""
    metrics, name = job.run.summary(), markup.text(job.run.folder.name)
    rows = [("training images", f"{metrics['n_train']}", "")]
    for key, label in (("image_auroc", "image AUROC"), ("aupro", "AUPRO")):
        if metrics.get(key) is not None:
            rows.append((label, f"{metrics[key]:.3f}", ""))
    if "held_out_nats" in metrics:
        words = f"of held-out good images; {metrics['train_nats']:.2f} of training images"
        rows.append(("−log p", f"{metrics['held_out_nats']:.2f}", f"nats per dimension {words}"))
    note = f'<p class="lk-small">{markup.text(metrics["note"])}</p>' if "note" in metrics else ""
    return (
        f'{markup.numbers(rows)}{note}<a class="lk-button" href="?run={name}">Open this run</a>'
        '<p class="lk-small">It is in the choice of runs above, in every tab.</p>'
    )
