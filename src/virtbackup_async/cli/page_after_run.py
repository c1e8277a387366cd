"""The page that the configuration wants after each run, and the mail with it.

The run's result is known by then, and nothing here changes it: what fails is a warning.
"""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from anyio import to_thread

from virtbackup_async.api.virtbackup import open_virtbackup
from virtbackup_async.config.schema import Config
from virtbackup_async.errors import VirtBackupError
from virtbackup_async.events import Emit, Summary, Warned
from virtbackup_async.reporting.outcome import SIGNALLED


async def write_page_after_run(config: Config, summary: Summary, emit: Emit) -> None:
    """Write the page, and mail it if that is due; not after a signal, which wants an end."""
    file = config.report.html
    if file is None or summary.exit_code >= SIGNALLED:
        return
    try:
        await _write(config, file, emit)
    except (VirtBackupError, OSError) as error:
        emit(Warned(f"the page was not written: {error}"))
    except Exception as error:  # noqa: BLE001 -- a page must not make a good run a failed one
        emit(Warned(f"the page was not written: unexpected {type(error).__name__}: {error}"))


async def _write(config: Config, file: Path, emit: Emit) -> None:
    # Jinja2 takes longer to import than most commands to start.
    from virtbackup_async.reporting.metrics import (  # noqa: PLC0415 -- see above
        OVERVIEW_HELP,
        samples_of_overview,
    )
    from virtbackup_async.reporting.metrics_file import update_metrics  # noqa: PLC0415
    from virtbackup_async.reporting.notification import send  # noqa: PLC0415 -- see above
    from virtbackup_async.reporting.page import mail  # noqa: PLC0415 -- see above
    from virtbackup_async.reporting.page.file import last_mailed, write_page  # noqa: PLC0415
    from virtbackup_async.reporting.page.page import render_page  # noqa: PLC0415 -- see above

    async with open_virtbackup(config) as vb:
        overview = await vb.overview()
    if config.metrics_textfile is not None:
        samples = samples_of_overview(overview)
        await update_metrics(config.metrics_textfile, samples, replaced=OVERVIEW_HELP)
    mailed = await last_mailed(file)
    mode = config.report.mode
    render = partial(render_page, overview)
    await write_page(file, await to_thread.run_sync(partial(render, mailed=mailed)), mode)
    urls = config.notify.urls
    if not urls or not mail.is_due(config.report.mail, mailed, overview.at):
        return
    warning = await send(urls, mail.subject(overview), mail.text(overview), file)
    if warning is not None:
        emit(Warned(f"the page was not mailed: {warning}"))
        return
    now = int(datetime.now(UTC).timestamp())
    await write_page(file, await to_thread.run_sync(partial(render, mailed=now)), mode)
