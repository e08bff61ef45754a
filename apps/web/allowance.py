"""What a visitor may order of the server, and how much of it stays."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from labkit import methods
from labkit.core.config import BUDGETS, Config


@dataclass(frozen=True)
class Allowance:
    """The owner's word on it.

    paper    whether the budget of that name may be trained
    uploads  bytes of all uploaded data together
    days     until an upload that no run needs is removed
    side     largest image_size, pixels; pixels, of a batch: batch x image_size²
    epochs   of all stages; images, of all parts
    times    how often its usual value any other number of a setting may be
    """

    paper: bool = False
    uploads: float = 10e9
    days: float = 30.0
    side: int = 1024
    pixels: int = 1 << 24
    epochs: int = 1000
    images: int = 20_000
    times: int = 16

    @property
    def budgets(self) -> list[str]:
        """The names of those that may be trained."""
        return [name for name in BUDGETS if self.paper or name != "paper"]

    def check(self, spec: Config) -> None:
        """Refuse what would keep the server busy for too long.

        Raises: ValueError naming the key of what is more than a visitor may order.
        """
        if spec.budget not in self.budgets:
            raise ValueError(f"The budget {spec.budget} is closed here; choose laptop or quick.")
        size = spec.input.image_size
        rows = [
            ("image_size", size, self.side),
            ("batch x image_size²", spec.train.batch * size**2, self.pixels),
            ("epochs", planned(spec), self.epochs),
            *self._numbers(spec),
        ]
        for key, value, most in rows:
            if value > most:
                raise ValueError(f"{key} = {value:g} is more than this app trains; give {most:g}.")

    def _numbers(self, spec: Config) -> Iterator[tuple[str, float, float]]:
        """Key, value and limit of every other number, those of a list one by one."""
        usual = methods.resolve(spec.method, spec.data, spec.budget, spec.seed, {})
        for key, value in (asdict(spec.train) | asdict(spec.flow)).items():
            if "epochs" in key:
                continue
            least = 64 if isinstance(value, int) else self.times
            limit = max([least, *(self.times * abs(one) for one in _listed(usual.value(key)))])
            yield from ((key, abs(one), limit) for one in _listed(value))
            yield f"the length of {key}", len(_listed(value)), self.times


USUAL = Allowance()


def planned(spec: Config) -> int:
    """The epochs of all stages."""
    stages = methods.get(spec.method).stages(spec.flow, spec.train)
    return sum(stage.train.epochs for stage in stages)


def _listed(value: Any) -> list[float]:
    """The numbers of a value."""
    values = value if isinstance(value, list | tuple) else [value]
    return [one for one in values if isinstance(one, int | float)]
