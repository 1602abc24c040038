"""The objects of a program, by name: what a `openckpt.Checkpoint` saves and restores (formats 6.3).

Checkpoint(model=model, epoch=3)     a root of its own, whose children are attributes
Checkpoint(model, epoch=3)           the model is the root; ``root`` and ``epoch`` hang below it too, as TensorFlow has it
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from openckpt.errors import PartialRestoreWarning, shown, warn, with_article
from openckpt.formats.collecting import collection_held
from openckpt.training.adapters import view_of
from openckpt.training.adapters.plain import as_child
from openckpt.training.counter import SAVE_COUNTER, Counter, Counting, find_root_counter
from openckpt.training.live import LiveGraph
from openckpt.training.tracking import Bare, Child, View

if TYPE_CHECKING:
    from openckpt.training.deferred import Deferral

_SHOWN = (bool, int, float)


class Program:
    """Named objects, which are its attributes; one of them may be the root of the graph itself."""

    def __init__(self, root: object, children: Mapping[str, object]) -> None:
        for name in children:
            if name.startswith("_") or hasattr(type(self), name):
                raise ValueError(f"a child cannot be called {name!r}: that is a name of Checkpoint's own")
        self._root = root
        self._children = dict(sorted(children.items()))
        self._own_counter: Counter | None = None
        self._deferrals: list[Deferral] = []
        """of restores whose values wait for something, the newest last"""
        self._root_view()  # raises what is wrong with the names

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_children"][name]
        except KeyError:
            raise AttributeError(f"this Checkpoint has no child {name!r}") from None

    def __setattr__(self, name: str, value: object) -> None:
        if name.startswith("_") or hasattr(type(self), name):
            super().__setattr__(name, value)
        else:
            is_new = name not in self._children
            self._children[name] = value
            if is_new and self._deferrals:
                self._live()  # what waits for it is given now, and not when a save finds out, a thousand steps later

    def __delattr__(self, name: str) -> None:
        if name not in self._children:
            raise AttributeError(f"this Checkpoint has no child {name!r}")
        del self._children[name]

    def __repr__(self) -> str:
        named = {} if self._root is None else {"": self._root}
        named |= {f"{name}=": value for name, value in self._children.items()}
        shown = [
            f"{name}{value if isinstance(value, _SHOWN) else type(value).__name__}" for name, value in named.items()
        ]
        return f"<{type(self).__name__}({', '.join(shown)}), saved {self.save_counter} times>"

    def __openckpt_view__(self) -> View:
        """Return the view of a Checkpoint inside of another one: its children, the root as one of them."""
        root = [] if self._root is None else [Child("root", self._root)]
        children = sorted((*self._attached(), *root), key=lambda child: child.name)
        return View("Checkpoint", [*children, *self._counted()], replace=self._replace, family="container")

    @property
    def save_counter(self) -> int:
        """How many times this was saved, restores included: the number of the last checkpoint."""
        counter = self._counter()
        return 0 if counter is None else counter.number

    @property
    def root(self) -> Any:
        """The root that was given, or its successor where a restore had to make a new object; None where there was none."""
        return self._root

    # -- the graph ----------------------------------------------------------------------------------------------------

    def _live(self) -> LiveGraph:
        """Walk the program, after what waits for new parts of it was restored."""
        live = self._walk()
        replaced = [deferral.advance(live, self._children) for deferral in self._waiting()]
        return self._walk() if any(replaced) else live

    def _live_to_save(self) -> LiveGraph:
        """Walk the program, which a save leaves as it is."""
        live = self._walk()
        late = {name: None for deferral in self._waiting() for name in deferral.pass_over(live, self._children)}
        if late:
            warn(
                f"made after the restore, and saved with the values that they have now: {shown(list(late))}; to give such objects "
                "their stored values, ask the status of the restore when they are there: status.assert_consumed()",
                PartialRestoreWarning,
            )
        return live

    def _waiting(self) -> list[Deferral]:
        """Return the restores whose values wait for something, and forget the others."""
        self._deferrals = [deferral for deferral in self._deferrals if deferral.waits]
        return self._deferrals

    def _walk(self) -> LiveGraph:
        with collection_held():
            return LiveGraph(self if self._root is None else self._root, self._root_view())

    def _root_view(self) -> View:
        if self._root is None:
            return View("Checkpoint", [*self._attached(), *self._counted()], replace=self._replace)
        view = view_of(self._root)
        if view is None or view.refused:
            raise ValueError(f"{with_article(type(self._root).__name__)} cannot be the root of a checkpoint")
        names = {child.name: child.value for child in view.children}
        for name, value in self._children.items():
            held = names.get(name, value)
            if held is not value and (not isinstance(held, Bare) or held.value is not value):
                raise ValueError(
                    f"the root has another child called {name!r}: call the keyword something else, or leave it out"
                )
        # TensorFlow hangs the root below itself as "root", and sorts it among the keywords (formats 6.3).
        attached = sorted([*self._attached(), Child("root", self._root)], key=lambda child: child.name)
        children = [*view.children, *(child for child in (*attached, *self._counted()) if child.name not in names)]

        def replace(new: Mapping[str, object]) -> object:
            self._replace({name: item for name, item in new.items() if name in self._children})
            others = {name: item for name, item in new.items() if name in names}
            if others and view.replace is not None:
                self._root = view.replace(others)
            return self._root

        return dataclasses.replace(view, children=children, replace=replace)

    def _attached(self) -> list[Child]:
        return [as_child(name, value) for name, value in self._children.items()]

    def _counted(self) -> list[Child]:
        return [] if self._own_counter is None else [Child(SAVE_COUNTER, self._own_counter)]

    def _replace(self, new: Mapping[str, object]) -> object:
        for name, item in new.items():
            if name == "root":
                self._root = item
            else:
                self._children[name] = item
        return self

    # -- the counter --------------------------------------------------------------------------------------------------

    def _counter(self) -> Counting | None:
        """Return what counts the saves, None where nothing does yet; a root may have a counter of its own."""
        of_root = None if self._root is None else view_of(self._root)
        own = None if of_root is None else find_root_counter(of_root)
        return own or self._own_counter

    def _make_counter(self) -> Counting:
        """Return what counts the saves, made where nothing does yet."""
        counter = self._counter()
        if counter is None:
            counter = self._own_counter = Counter()
            root = self if self._root is None else self._root
            for deferral in self._deferrals:  # gives it the count of a file that was read before there was a counter
                deferral.advance(LiveGraph(root, View("Checkpoint", self._counted())), slots=False)
        return counter

    def _count_to(self, number: int) -> None:
        """Make this the save counter."""
        self._make_counter().number = number
