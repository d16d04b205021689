"""Every site left out once: which sites a table has, and the variants that leave each out."""

from collections.abc import Mapping

from mri_jax.errors import UserError
from mri_jax.problems import listed
from mri_jax.settings.study import Study, merged, named

Counts = Mapping[str, tuple[int, int]]


def left_out_in_turn(study: Study, counts: Counts) -> tuple[Study, list[str]]:
    """Returns a study with a variant for each site that is left out, and what to tell.

    Variants that the study has already are made once for each site. A group of small sites is
    tested, but not tuned on: it is no site.

    Args:
      study: A study that `awaits_sites`.
      counts: Scans of the negative and the positive class of each cohort that has a volume.

    Raises:
      UserError: A site is not in the table, or fewer than two can be left out.
    """
    sites = _sites(study, counts)
    asked, field = study.sites.minimum, named("sites.minimum")
    large = [site for site in sites if min(counts[site]) >= asked]
    small = [site for site in sites if site not in large]
    few = ", ".join(f"{site} ({counts[site][1]} and {counts[site][0]})" for site in small)
    classes = f"{study.task.positive} and {study.task.negative}"
    told: list[str] = []
    groups: list[tuple[str, ...]] = [(site,) for site in large]
    if small and study.sites.small == "drop":
        told.append(f"{field}: {asked}: not used, with fewer scans of {classes}: {few}")
        sites = large
    elif small:
        pooled = [sum(counts[site][label] for site in small) for label in (0, 1)]
        if min(pooled) >= asked:
            groups.append(tuple(small))
            told.append(
                f"{field}: {asked}: left out together, with fewer scans of {classes}: {few}"
            )
        else:
            told.append(
                f"{field}: {asked}: trained on, never left out, with fewer scans of {classes} even "
                f"together: {few}"
            )
    if len(groups) < 2:
        enough = listed(large) if large else "no site"
        raise UserError(
            f"{field}: {asked}: {enough} has as many scans of {classes} each, and two sites are "
            f"needed; the others: {few or 'none'}; lower it"
        )
    before = study.variants or ({},)
    variants = tuple(
        merged(variant, _without(group, sites)) for variant in before for group in groups
    )
    return Study.parse({**study.to_json(), "variants": variants}), told


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
