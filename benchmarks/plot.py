"""Figures as PNG. Needs matplotlib: the extra `bench`; without it nothing is drawn, and that is said."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks import tables


def _pyplot() -> Any:
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        print("no plot: matplotlib is not installed (pip install -e '.[bench]')", file=sys.stderr)
        return None
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def walls(runs: list[tables.Run], path: Path) -> str:
    """Wall seconds of every client, a panel for each shape and link. Markdown that shows it, or "": not drawn."""
    plt = _pyplot()
    if plt is None or not runs:
        return ""
    grouped = tables.groups(runs)
    columns = min(4, len(grouped))
    lines = -(-len(grouped) // columns)
    tallest = max(len(rows) for rows in grouped.values())
    figure, axes = plt.subplots(lines, columns, figsize=(4.6 * columns, (0.9 + 0.3 * tallest) * lines), squeeze=False)
    for axis in axes.flat[len(grouped) :]:
        axis.set_visible(False)
    for axis, ((shape, link, dialect), unsorted) in zip(axes.flat, grouped.items(), strict=False):
        rows = sorted(unsorted, key=lambda row: -row["wall"])
        names = [f"{row['client'].partition('@')[0]} {row['n']}{'' if row['ok'] else ' (not right)'}" for row in rows]
        ours = ["tab:blue" if name.startswith("ours") else "0.7" for name in names]
        bars = axis.barh(names, [row["wall"] for row in rows], color=ours)
        axis.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
        axis.set_title(f"{shape}, {link}, {dialect}", fontsize=10)
        axis.set_xlabel("seconds, less is better", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return f"![Seconds of each client, by shape and link]({path.name})\n\n"


def throttle(run: dict[str, Any], path: Path) -> str:
    """Connections, goodput and refusals over time, from what benchmarks.throttle wrote down. As `walls`."""
    plt = _pyplot()
    if plt is None:
        return ""
    began = next(line["at"] for line in run["trace"] if line["requests"])
    trace = [line for line in run["trace"] if line["at"] >= began]
    at = [line["at"] - began for line in trace]
    figure, axes = plt.subplots(3, 1, figsize=(9, 7.5), sharex=True)
    axes[0].step(
        at, [line["in_flight"] for line in trace], color="0.7", where="post", label="in flight at the server, at most"
    )
    if limits := run["events"]:
        times = [*(event["at"] - began for event in limits), at[-1]]
        allowed = [*(event["limit"] for event in limits), limits[-1]["limit"]]
        axes[0].step(times, allowed, where="post", label="allowed by our pace")
    axes[0].axhline(run["limit"], color="tab:red", linestyle="--", linewidth=1, label="refused above")
    axes[0].set_ylabel("requests in flight")
    seconds, sent, refused = _by_second(trace, began)
    axes[1].plot(seconds, [value / 1e6 for value in sent], color="tab:blue", label="goodput")
    axes[1].axhline(run["best"] / 1e6, color="tab:red", linestyle="--", linewidth=1, label="the server's limit")
    axes[1].set_ylabel("MB/s")
    axes[2].plot(seconds, [100 * value for value in refused], color="tab:orange", label="refused, of 5 s")
    axes[2].axhline(1, color="tab:red", linestyle="--", linewidth=1, label="1 %")
    axes[2].set_ylabel("% of requests")
    axes[2].set_xlabel("seconds since the first request")
    for axis in axes:
        axis.legend(fontsize=8, loc="lower right")
        axis.set_ylim(bottom=0)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"a server that answers 429 above {run['limit']} requests in flight", fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return f"\n\n![Requests in flight, goodput and refusals over time]({path.name})"


def _by_second(trace: list[dict[str, Any]], began: float) -> tuple[list[float], list[float], list[float]]:
    """(seconds, bytes per second, share refused) over windows of five seconds."""
    seconds, sent, refused = [], [], []
    first = trace[0]
    for line in trace:
        if (length := line["at"] - first["at"]) >= 5:
            seconds.append((line["at"] + first["at"]) / 2 - began)
            sent.append((line["sent"] - first["sent"]) / length)
            refused.append((line["refused"] - first["refused"]) / max(line["requests"] - first["requests"], 1))
            first = line
    return seconds, sent, refused
