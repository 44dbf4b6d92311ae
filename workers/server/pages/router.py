"""All pages, for the application to mount. Routes of pages are added here."""

from __future__ import annotations

from fastapi import APIRouter

from workers.server.pages import bundles, compare, datasets, explore, home, job_form, jobs, login, sample
from workers.server.pages.job import routes as job
from workers.server.pages.nights import routes as nights
from workers.server.pages.nights import schedule_form

router = APIRouter(include_in_schema=False)
router.include_router(login.router)
router.include_router(home.router)
for page in (job_form, jobs, job, schedule_form, nights, bundles):  # /jobs/new is no job: the form comes first
    router.include_router(page.router)
for each in (sample, explore, compare, datasets):  # the path of a dataset may have slashes: its own page comes last
    router.include_router(each.router)
