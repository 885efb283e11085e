"""What lies in the dataset folder. In: a folder. Out: a table on screen."""

from __future__ import annotations

from pathlib import Path

from safemil.data.hdf5 import read_layout
from safemil.data.provenance import origin_of
from safemil.data.tasks import parse_file_name
from safemil.data.trajectories import DatasetError


def print_inventory(folder: Path) -> None:
    """Task, file, size, number of trajectories and origin of every dataset, finished or not."""
    rows = [_describe(path) for path in sorted(folder.glob("*.hdf5"))]
    for part in sorted(folder.glob("*.part")):
        rows.append(("", part.name, _size(part), "-", "unfinished download; fetch goes on"))
    for parts in sorted(folder.glob("*.parts")):
        done = len(list(parts.glob("*.npz")))
        rows.append(("", parts.name, "", str(done), "unfinished collection; the same command goes on"))
    if not rows:
        print(f"no dataset in {folder}")
        return
    rows = [("task", "file", "size", "trajectories", "from"), *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    print(f"{folder}:")
    for name, file, size, count, origin in rows:
        print(f"{name:{widths[0]}}  {file:{widths[1]}}  {size:>{widths[2]}}  {count:>{widths[3]}}  {origin}")


def _describe(path: Path) -> tuple[str, str, str, str, str]:
    """(task, file, size, trajectories, where it comes from) of a file in the dataset folder."""
    task, _ = parse_file_name(path.name)
    name = task.name if task else "?"
    try:
        layout = read_layout(path, task)
    except DatasetError as error:
        return name, path.name, _size(path), "-", f"cannot be used: {error}".replace(f"{path}: ", "")
    return name, path.name, _size(path), str(len(layout.offsets) - 1), origin_of(path, layout.attributes)


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"
