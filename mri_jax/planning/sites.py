"""Every site left out once: which sites a table has, and the variants that leave each out."""

from collections.abc import Mapping, Sequence

import pandas as pd

from mri_jax.cohort.identity import unspelt
from mri_jax.errors import UserError
from mri_jax.problems import listed
from mri_jax.settings.study import Study, merged, named

Counts = Mapping[str, tuple[int, int]]


def left_out_in_turn(study: Study, counts: Counts) -> tuple[Study, list[str]]:
    """Returns a study with a variant for each site that is left out, and what to tell.

    Variants that the study has already are made once for each site. A group of small sites is
    tested, but not tuned on: it is no site. A site of one class is trained on and never tested:
    beside others its people would be told from theirs by the site.

    Args:
      study: A study that `awaits_sites`.
      counts: Scans of the negative and the positive class of each cohort that has a volume.

    Raises:
      UserError: A site or a class is not in the table, or fewer than two sites can be left out.
    """
    sites = _sites(study, counts)
    asked, field = study.sites.minimum, named("sites.minimum")
    large = [site for site in sites if min(counts[site]) >= asked]
    single = [site for site in sites if not min(counts[site])]
    small = [site for site in sites if site not in large + single]
    classes = f"{study.task.positive} and {study.task.negative}"
    told: list[str] = []

    def numbers(of: Sequence[str]) -> str:
        return ", ".join(f"{site} ({counts[site][1]} and {counts[site][0]})" for site in of)

    few = numbers(small)
    groups: list[tuple[str, ...]] = [(site,) for site in large]
    if small and study.sites.small == "drop":
        told.append(f"{field}: {asked}: not used, with fewer scans of {classes}: {few}")
        sites = [site for site in sites if site not in small]
    elif small:
        pooled = [sum(counts[site][label] for site in small) for label in (0, 1)]
        if min(pooled) >= asked:
            groups.append(tuple(small))
            adapted = " and not adapted to" if any(run.adapts for run in study.runs) else ""
            told.append(
                f"{field}: {asked}: left out together{adapted}, with fewer scans of {classes}: "
                f"{few}"
            )
        else:
            told.append(
                f"{field}: {asked}: trained on, never left out, with fewer scans of {classes} even "
                f"together: {few}"
            )
    if single:
        told.append(f"trained on, never tested, with one of {classes} alone: {numbers(single)}")
    if len(groups) < 2:
        others = f"and two sites are needed; the others: {numbers(small + single) or 'none'}"
        if len(large + small) < 2:
            both = listed(large + small) if large + small else "no site"
            field = named("sites.cohorts" if study.sites.cohorts else "sites")
            raise UserError(f"{field}: {both} has scans of both {classes}, {others}")
        enough = listed(large) if large else "no site"
        most = sorted(min(counts[site]) for site in large + small)[-2]
        raise UserError(
            f"{field}: {asked}: {enough} has as many scans of {classes} each, {others}; lower it "
            f"to {most}"
        )
    before = study.variants or ({},)
    variants = tuple(
        merged(variant, _without(group, sites)) for variant in before for group in groups
    )
    return Study.parse({**study.to_json(), "variants": variants}), told


def counts_in(frame: pd.DataFrame, study: Study) -> dict[str, tuple[int, int]]:
    """Returns scans of the negative and the positive class of each cohort of a table.

    Raises:
      UserError: A class is none of the table's, or a site stands in two spellings.
    """
    task = study.task
    spelt: dict[str, str] = {}
    for site in frame["cohort"].unique():
        if (other := spelt.setdefault(unspelt(site), site)) != site:
            raise UserError(
                f"{named('data.cohort')}: cohorts {other!r} and {site!r} differ by their spelling "
                "alone; give one site one name"
            )
    for field, name in (("task.positive", task.positive), ("task.negative", task.negative)):
        if not (frame["diagnosis"] == name).any():
            there = listed(sorted(set(frame["diagnosis"]) - {""}))
            raise UserError(f"{named(field)}: the table has no scan of {name!r}; it has {there}")
    of = frame.groupby("cohort")["diagnosis"].value_counts().to_dict()
    return {
        site: (of.get((site, task.negative), 0), of.get((site, task.positive), 0))
        for site in frame["cohort"].unique()
    }


def _sites(study: Study, counts: Counts) -> list[str]:
    """Returns the sites that have a scan of either class."""
    if not study.sites.cohorts:
        return sorted(site for site, of in counts.items() if sum(of))
    for site in study.sites.cohorts:
        if not sum(counts.get(site, (0, 0))):
            there = listed(sorted(counts))
            raise UserError(
                f"{named('sites.cohorts')}: {site!r} has no scan of {study.task.positive} or "
                f"{study.task.negative}; there are {there}"
            )
    return list(study.sites.cohorts)


def _without(group: tuple[str, ...], sites: list[str]) -> dict[str, object]:
    """Returns what a variant overrides that leaves some sites out."""
    others = tuple(site for site in sites if site not in group)
    found: dict[str, object] = {
        "sites": {"left_out": group},
        "source": {"cohorts": others},
        "targets": group,
        "finetune": {"cohort": group[0]},
    }
    if len(group) > 1:
        found["finetune"] = {"cohort": group[0], "layers": ()}
        found["adaptation"] = {"methods": (), "resampled": ()}
    return found
