"""CNN-5 trained on all sites but one and tested on that one, for every site of a table.

    python launch.py --config=configs/leave_one_site_out.py --config.data.cohort=cohort.csv \\
        --config.data.store=STORE --config.task.positive=ASD --config.task.negative=TC
    python launch.py --config=configs/leave_one_site_out.py

Every cohort of the table is a site, or those of `--config.sites.cohorts`. One with fewer than
`--config.sites.minimum` scans of a class is left out together with the other small ones, or with
`--config.sites.small=drop` not used. The report has a row a site, the mean over sites, and what to
expect of a new site. `--config.finetune.layers="('high',)"` also fine-tunes on a part of the site
that is left out. Without a table seven sites are simulated: expect a mean AUC of about 80%.
"""

from configs import base


def get_config(preset: str = "demo"):
    """See the module's docstring."""
    config = base.get_config(preset)
    config.name = "leave_one_site_out"
    config.sites.minimum = 10
    # One network is trained for each site and fold.
    config.train.folds = {"demo": 3, "smoke": 2}.get(preset, 5)
    return config
