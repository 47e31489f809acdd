"""Several adapters on one frozen model at once, each on its own rows of the batch."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
from dataclasses import dataclass
import itertools
from typing import Any

import torch

from optuna_llmbo.errors import InputError
from optuna_llmbo.lora.adapter import adapter
from optuna_llmbo.lora.adapter import START_AT_THE_WEIGHTS
from optuna_llmbo.lora.hyperparameters import NO_MODULES
from optuna_llmbo.lora.layers import adapted_layers
from optuna_llmbo.lora.layers import linear_layers
from optuna_llmbo.lora.packed.updates import is_plain
from optuna_llmbo.lora.packed.updates import rank_class
from optuna_llmbo.lora.packed.updates import Updates
from optuna_llmbo.lora.recipe import LoRARecipe
from optuna_llmbo.lora.seeds import Stream


class DetachedAdapter:
    """An adapter built by peft, kept apart from its model.

    Args:
        model: a causal language model of `transformers`; unchanged afterwards.
        recipe: recipe of the adapter.
        seed: seed of the initial weights, which equal those of `adapter`.

    Raises:
        InputError: if the recipe changes the base model itself, or the model has no such modules.
    """

    def __init__(self, model: Any, recipe: LoRARecipe, seed: int) -> None:
        check_packable(model, recipe)
        with adapter(model, recipe, seed):
            self._config = model.peft_config
            self._layers = {n: m for n, m in model.named_modules() if hasattr(m, "lora_A")}
        self._bases = {name: layer.base_layer for name, layer in self._layers.items()}
        for layer in self._layers.values():
            layer.base_layer = _Computed(layer.base_layer)
        self.modules = torch.nn.ModuleList(self._layers.values())
        """peft's layers, in the order of the model."""
        self.parameters = [p for p in self.modules.parameters() if p.requires_grad]
        self.dropout: Stream | None = None
        """Random stream of the dropout; None: the caller's state."""
        self.plain = {name: layer for name, layer in self._layers.items() if is_plain(layer)}
        """peft's layers that can be computed together with those of other adapters, by name."""
        self.rank_class = rank_class(recipe.rank)
        self.kind = (tuple(self.plain), self.rank_class)
        """Neighbours of the same kind can be computed together: order a pass by it."""

    @property
    def bases(self) -> dict[str, torch.nn.Module]:
        """The adapted layers of the model, by name."""
        return dict(self._bases)

    def applied(self, name: str, x: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
        """A layer's output with this adapter.

        Args:
            name: name of the layer, one of `bases`.
            x: (n, t, d_in), input of the layer.
            base: (n, t, d_out), output of the base layer.

        Returns:
            (n, t, d_out).
        """
        layer = self._layers[name]
        layer.base_layer.output = base
        with self._drawing(layer):
            output: torch.Tensor = layer(x)
        layer.base_layer.output = None
        return output

    def drops(self, name: str) -> bool:
        """Whether a plain layer drops inputs now."""
        layer = self.plain[name]
        return layer.training and isinstance(layer.lora_dropout["default"], torch.nn.Dropout)

    def dropped(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """The input of a plain layer after its dropout.

        Args:
            name: name of the layer, one of `plain`.
            x: (n, t, d_in), of the adapter's dtype, in which peft draws.

        Returns:
            (n, t, d_in).
        """
        layer = self.plain[name]
        with self._drawing(layer):
            output: torch.Tensor = layer.lora_dropout["default"](x)
        return output

    def _drawing(self, layer: Any) -> contextlib.AbstractContextManager[None]:
        """Context in which a layer draws its dropout."""
        stream = self.dropout if layer.training else None
        return contextlib.nullcontext() if stream is None else stream.drawn()

    @contextlib.contextmanager
    def attached(self, model: Any) -> Iterator[None]:
        """Attach this adapter to the model, as `adapter` does, for the duration of the block."""
        stand_ins = {name: layer.base_layer for name, layer in self._layers.items()}
        try:
            for name, layer in self._layers.items():
                layer.base_layer = self._bases[name]
                model.set_submodule(name, layer)
            model.peft_config = self._config
            yield
        finally:
            for name, layer in self._layers.items():
                model.set_submodule(name, self._bases[name])
                layer.base_layer = stand_ins[name]
            if hasattr(model, "peft_config"):
                del model.peft_config


@dataclass(frozen=True)
class Rows:
    """A part of a batch: the rows of one adapter."""

    adapter: DetachedAdapter
    count: int
    """Number of rows; the parts follow one another in the batch."""
    width: int
    """Columns that hold tokens; those to the right are padding to the longest part."""


class SharedBase:
    """Applies each adapter to its own rows of every batch that a frozen model reads.

    A base layer multiplies all rows at once. Then the updates of plain LoRA layers are added
    (`Updates`), those of neighbouring parts of the same kind and number of rows together; any
    other layer of peft, such as DoRA's, is called on its own rows. Dropout always gets an input of
    exactly the shape that it would have alone, so that it draws the same. The model is unchanged
    except for hooks on its layers.

    Args:
        model: a causal language model of `transformers`.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._hooks: dict[str, torch.utils.hooks.RemovableHandle] = {}
        self._parts: Sequence[Rows] = ()
        self._updates = Updates()

    def hook(self, added: DetachedAdapter) -> None:
        """Hook the layers of an adapter that have no hook yet."""
        for name, base in added.bases.items():
            if name not in self._hooks:
                self._hooks[name] = base.register_forward_hook(self._hook_of(name))

    def close(self) -> None:
        """Remove all hooks."""
        for handle in self._hooks.values():
            handle.remove()
        self._hooks.clear()

    @contextlib.contextmanager
    def reading(self, parts: Sequence[Rows]) -> Iterator[None]:
        """Context in which the model reads batches that consist of these parts, in this order."""
        self._parts, self._updates = parts, Updates()
        try:
            yield
        finally:
            self._parts, self._updates = (), Updates()

    def _hook_of(self, name: str) -> Any:
        def mix(_: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> Any:
            return self._mixed(name, inputs[0], output) if self._parts else None

        return mix

    def _mixed(self, name: str, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """A base layer's output with every adapter's update on its own rows."""
        counts = [part.count for part in self._parts]
        columns = max(part.width for part in self._parts)
        if x.dim() != 3 or x.shape[:2] != (sum(counts), columns):
            raise InputError(
                f"the layer {name} reads a tensor of shape {tuple(x.shape)} where "
                f"({sum(counts)}, {columns}, width) was expected: it does not keep the rows of a "
                "batch apart, so that adapters cannot be packed on it. Train one at a time."
            )
        runs = [list(run) for _, run in itertools.groupby(self._parts, _computed_like(name))]
        sizes = [sum(part.count for part in run) for run in runs]
        rows = [
            self._updated(name, run, read, made)
            for run, read, made in zip(runs, _split(x, sizes), _split(output, sizes), strict=True)
        ]
        return torch.cat(rows) if len(rows) > 1 else rows[0]

    def _updated(
        self, name: str, run: Sequence[Rows], x: torch.Tensor, output: torch.Tensor
    ) -> torch.Tensor:
        """A base layer's output on the rows of parts that are computed alike."""
        part = run[0]
        if name in part.adapter.plain:
            layers = [one.adapter.plain[name] for one in run]
            # columns right of a part's width are updated too: nothing reads them
            return self._updates.added(layers, self._dropped(name, run, x), output)
        if name not in part.adapter.bases:
            return output
        made, rest = output[:, : part.width], output[:, part.width :]
        updated = part.adapter.applied(name, _columns(x, part), made)
        return torch.cat([updated, rest], 1) if rest.shape[1] else updated

    def _dropped(self, name: str, run: Sequence[Rows], x: torch.Tensor) -> torch.Tensor:
        """The input of plain layers after the dropout of each."""
        if not any(part.adapter.drops(name) for part in run):
            return x
        x = x.to(run[0].adapter.parameters[0].dtype)
        pieces = []
        for part, mine in zip(run, _split(x, [part.count for part in run]), strict=True):
            if part.adapter.drops(name):
                rest = mine[:, part.width :]
                mine = part.adapter.dropped(name, _columns(mine, part))
                mine = torch.cat([mine, rest], 1) if rest.shape[1] else mine
            pieces.append(mine)
        return torch.cat(pieces)


def _computed_like(name: str) -> Callable[[Rows], Hashable]:
    """What neighbouring parts have in common that are computed together in a layer."""

    def key(part: Rows) -> Hashable:
        if name in part.adapter.plain:
            return part.adapter.rank_class, part.count
        return part if name in part.adapter.bases else None

    return key


def _split(x: torch.Tensor, sizes: list[int]) -> Sequence[torch.Tensor]:
    """Consecutive rows of these numbers.

    Not slices: the gradient of a split is one concatenation instead of a full tensor for each.
    """
    return x.split(sizes) if len(sizes) > 1 else [x]


def _columns(x: torch.Tensor, part: Rows) -> torch.Tensor:
    """The columns that a part would have alone; contiguous, or CUDA's dropout draws otherwise."""
    return x[:, : part.width].contiguous()


def is_packable(model: Any, recipe: LoRARecipe) -> bool:
    """Whether a recipe leaves the base model unchanged, so that others can share it."""
    return _obstacle(model, recipe) is None


def check_packable(model: Any, recipe: LoRARecipe) -> None:
    """Check that a recipe leaves the base model unchanged.

    Raises:
        InputError: if it does not.
    """
    if (obstacle := _obstacle(model, recipe)) is not None:
        raise InputError(f"{obstacle}, which the adapters of a pack share: train it alone.")


def _obstacle(model: Any, recipe: LoRARecipe) -> str | None:
    """What a recipe does to the base model, if anything."""
    if recipe.variant in START_AT_THE_WEIGHTS:
        return f"variant={recipe.variant!r} starts by changing the base model's weights"
    if recipe.bias != "none":
        return f"bias={recipe.bias!r} trains the base model's biases"
    if recipe.modules_to_save != NO_MODULES:
        return f"modules_to_save={recipe.modules_to_save!r} replaces modules of the base model"
    if not adapted_layers(model, recipe.target_modules).keys() <= linear_layers(model).keys():
        named = f"target_modules={recipe.target_modules!r}"
        return f"{named} puts adapters on the base model's embeddings or vocabulary projection"
    return None


class _Computed(torch.nn.Module):
    """Replaces a base layer inside peft's layer: returns its precomputed output.

    Weight and bias are the base layer's; DoRA reads them.
    """

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.weight = base.weight
        self.bias = base.bias
        self.output: torch.Tensor | None = None

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        """The base layer's output, whatever the input."""
        assert self.output is not None, "the output is set before the layer is called"
        return self.output
