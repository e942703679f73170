"""The `xinqiao` command: serve, import, export, staff, ensure-indexes, doctor.

Commands other than `serve` work on the running service's database: the one in `MONGODB_URI`, else the embedded one that
`xinqiao serve` has started on the same `XINQIAO_VAR`.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import click
from rich.console import Console
from rich.progress import Progress, TaskID, track
from rich.table import Table

from content import (
    archive,
    archivefiles,
    checkfiles,
    directoryfiles,
    embedded,
    films,
    importing,
    languages,
    lessons,
    objects,
    packs,
    paths,
    published,
    schedule,
    scheduleout,
    sealed,
    sheets,
    staff,
    store,
)
from content.failures import Failure
from content.lessons import Lesson
from content.records import SYSTEM
from content.settings import Settings, SettingsError
from notifications import (
    fcm,
    seasons,
    templates,  # noqa: F401  (an archive carries them)
)

console = Console(highlight=False, soft_wrap=True, markup=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def opened() -> Settings:
    """Settings, with the store connected."""
    settings = Settings.from_env().needed("mongodb_uri", "data_key", "signing_key")
    store.connect(settings)
    sealed.configure(settings)
    return settings


@click.group(help=(__doc__ or "").splitlines()[0])
def cli() -> None:
    """The command."""


@cli.command()
def serve() -> None:
    """Run the whole service here until Ctrl-C."""
    from api.serve import run

    run(Settings.from_env())


@cli.command("ensure-indexes")
def ensure_indexes() -> None:
    """Make or mend collections, validators and indexes."""
    opened()
    made = store.ensure_indexes()
    for line in made:
        console.print(line)
    console.print(f"{len(made)} changes")


@cli.command()
def prepare() -> None:
    """Indexes, bucket, first account and starter library, as `serve` does before it answers; safe to run again."""
    from api.bootstrap import prepare

    password = prepare(opened().needed("s3_endpoint_url"), console.print)
    if password:
        console.print(f"admin: {password}")


@cli.command("packs")
def build_packs() -> None:
    """Build the offline packs that are due, now; the worker does every ten minutes."""
    counts = packs.build(opened().needed("s3_endpoint_url"), store.now())
    console.print("  ".join(f"{name} {number}" for name, number in counts.items()))


# --- import and export -----------------------------------------------------------------------------------------------


@cli.group("import")
def import_() -> None:
    """Read files into drafts; publishing is a separate step. A second run changes nothing."""


def dry(command: Any) -> Any:
    """The options every import takes."""
    command = click.option("--dry-run", is_flag=True, help="say what would happen, write nothing")(command)
    return click.argument("path", type=click.Path(exists=True, path_type=Path))(command)


def spoken() -> tuple[str, str]:
    """Languages of what imports tell, the console's first (POSIX: LC_ALL, then LC_MESSAGES, then LANG); Chinese unless it says
    English."""
    said = next((value for name in ("LC_ALL", "LC_MESSAGES", "LANG") if (value := os.environ.get(name))), "")
    return ("en", "zh-Hans") if said.startswith("en") else ("zh-Hans", "en")


def report(rows: Iterable[dict[str, Any]], dry_run: bool, whole: bool = False) -> None:
    """The table at the end of an import; exit status 1 when anything was refused.

    What was read stands with what is in it where the row says so ("items", "languages", "scales": a questionnaire). What was
    refused or skipped stands alone with its reason, in the console's language; one and the same warning of many files stands
    once, with how many and the first of them. A row is {"source", "line"?, "outcome": new|changed|unchanged|refused|skipped,
    "key"?, "messages"?: [{tag: text}]}. `whole`: one refused row kept all out. Not on a terminal, each line of the table is one
    line of text.
    """
    counts = dict.fromkeys(("new", "changed", "unchanged", "refused", "skipped"), 0)
    alone: list[tuple[str, str, str, str]] = []
    warnings: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        row = {**row, "source": "".join(c if c.isprintable() else ascii(c)[1:-1] for c in row["source"])}
        counts[row["outcome"]] += 1
        if "scales" in row:
            alone.append((row["source"], "", row["outcome"], contents(row)))
        for text in row.get("messages") or []:
            reason = next((text[tag] for tag in spoken() if text.get(tag)), "")
            if row["outcome"] in ("refused", "skipped"):
                alone.append((row["source"], str(row.get("line") or ""), row["outcome"], reason))
            elif row["outcome"] != "unchanged":
                warnings.setdefault(reason, []).append((row["source"], str(row.get("line") or "")))
    for reason, places in sorted(warnings.items(), key=lambda pair: -len(pair[1])):
        source, number = places[0]
        alone.append((source if len(places) == 1 else f"{len(places)} times, first {source}", number, "warning", reason))
    if console.is_terminal:
        table = Table("file", "line", "outcome", "reason")
        for line in alone:
            table.add_row(*line)
        if alone:
            console.print(table)
    else:
        for line in alone:
            console.print("\t".join(line))
    end = "（试运行，未写入 dry run, nothing written）" if dry_run else ""
    if whole and counts["refused"]:
        end = "（有错误，全部未写入 nothing written）"
    console.print("  ".join(f"{name} {number}" for name, number in counts.items()) + end)
    if counts["refused"]:
        sys.exit(1)


def contents(row: dict[str, Any]) -> str:
    """What is in a questionnaire that was read: how many questions, scales with the least and the most, complete languages."""
    scales = [f"{code} {low} … {high}" for code, (low, high) in row["scales"].items()]
    tags = [tag for tag in languages.NAMES if tag in row["languages"]]
    others = len(row["languages"]) - len(tags)
    whole = [*tags, *([f"+ {others}"] if others else [])]
    parts = [
        f"{row['items']} 题 items",
        ", ".join(scales) or "没有分数 no scale",
        ", ".join(whole) or "没有完整语言 no language",
    ]
    return f"{row['key']}: {'; '.join(parts)}"


@import_.command("lessons")
@dry
def import_lessons(path: Path, dry_run: bool) -> None:
    """Markdown with front matter, a folder of it, or open-app-builder data lists; everything lands as draft."""
    opened()

    def rows() -> Iterable[dict[str, Any]]:
        found = list(importing.read(path))
        # sources before their translations, so that a translation finds the lesson it belongs to
        found.sort(key=lambda one: isinstance(one, importing.Read) and bool(one.meta.get("made_from")))
        for one in track(found, "reading", console=errors, disable=not errors.is_terminal):
            yield import_one(one, dry_run)

    report(rows(), dry_run)


def import_one(one: Any, dry_run: bool) -> dict[str, Any]:
    """Write one thing that was read and say what became of it."""
    if isinstance(one, importing.Skipped):
        return {
            "source": one.source,
            "outcome": "skipped",
            "messages": [one.why if isinstance(one.why, dict) else {"en": one.why}],
        }
    if isinstance(one, importing.Refused):
        return {"source": one.source, "line": one.line, "outcome": "refused", "messages": [one.reason]}
    warnings = [{"en": text} for text in one.warnings]
    try:
        outcome = lessons.import_draft(one.slug, one.language, one.meta, one.text, SYSTEM, assumed=one.assumed, dry_run=dry_run)
    except Failure as failure:
        found = [e.messages for e in getattr(failure, "errors", [])] or [failure.messages]
        return {"source": one.source, "line": one.line, "outcome": "refused", "messages": found}
    return {"source": one.source, "line": one.line, "outcome": outcome, "key": one.slug, "messages": warnings}


@import_.command("checks")
@dry
def import_checks(path: Path, dry_run: bool) -> None:
    """FHIR R4 Questionnaires and ReproSchema activities, each with an optional register file beside it (NAME.yaml)."""
    opened()
    report(checkfiles.import_files(path, SYSTEM, dry_run), dry_run)


@import_.command("paths")
@dry
def import_paths(path: Path, dry_run: bool) -> None:
    """Paths, SLUG.yaml each, as content/library/paths has them; their lessons and checks come first."""
    opened()
    report(paths.import_files(path, SYSTEM, dry_run), dry_run)


@import_.command("directory")
@dry
def import_directory(path: Path, dry_run: bool) -> None:
    """Help directory as JSON or CSV (HSDS field names)."""
    opened()
    report(directoryfiles.import_file(path, SYSTEM, dry_run), dry_run, whole=True)


def print_template(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Print the CSV template and end, whatever else was asked."""
    if wanted:
        click.echo(sheets.to_csv(scheduleout.template(datetime.now(ZoneInfo(Settings().zone)).date())), nl=False)
        context.exit()


@import_.command("schedule")
@click.option("--template", is_flag=True, is_eager=True, expose_value=False, callback=print_template, help="print an example")
@dry
def import_schedule(path: Path, dry_run: bool) -> None:
    """A term's course sessions from XLSX or CSV (UTF-8, or GB18030 as Excel saves it), all rows or none."""
    settings = opened()
    report(schedule.import_file(path, SYSTEM, settings, dry_run), dry_run, whole=True)


@contextlib.contextmanager
def bar() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for each step, where someone watches."""
    with Progress(*Progress.get_default_columns(), console=errors, disable=not errors.is_terminal) as shown:
        tasks: dict[str, TaskID] = {}

        def progress(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = shown.add_task(step)
            shown.update(tasks[step], completed=done, total=total or 1 if done < total else total)

        yield progress


def tell(counts: dict[str, int]) -> None:
    """How many of what; each a line of text where nobody watches."""
    if console.is_terminal:
        table = Table("", "", show_header=False)
        table.columns[1].justify = "right"
        for name, number in counts.items():
            table.add_row(name, f"{number:,}")
        console.print(table)
    else:
        for name, number in counts.items():
            console.print(f"{name}\t{number}")


LOADED = {
    "new": "导入完成 imported",
    "library": "导入完成，替换了无人改动过的起步内容库 imported, in place of the starter library, which nobody had changed",
    "again": "接着上次中断的导入，已完成 imported, where the last import was cut",
    "done": "此存档先前已经导入，没有写入什么 this archive was imported before, nothing written",
}


@import_.command("archive")
@dry
def import_archive(path: Path, dry_run: bool) -> None:
    """A folder that `export` wrote, whole: drafts, versions, what is published, media. Into a service without content."""
    settings = opened().needed("s3_endpoint_url")
    with bar() as progress:
        loaded = archive.load(settings, path, progress, dry_run)
    tell(loaded.counts)
    console.print(LOADED[loaded.state] + ("（试运行，未写入 dry run, nothing written）" if dry_run else ""))
    if archivefiles.manifest(path).signing_key != packs.public_key(settings)["kid"]:
        console.print(
            "注意：离线包的签名密钥与原服务不同，已固定原公钥的手机会拒绝新包。请把原服务的 XINQIAO_SIGNING_KEY 带过来。"
            " The packs here are signed with another key than where this archive was made: phones that pinned that one refuse"
            " them. Bring its XINQIAO_SIGNING_KEY along."
        )


@cli.command()
@click.argument("path", type=click.Path(path_type=Path))
def export(path: Path) -> None:
    """Write everything taught into the folder PATH: an archive that `import archive` reads, lessons as Markdown in it."""
    settings = opened().needed("s3_endpoint_url")
    with bar() as progress:
        counts = archive.export(settings, path, progress)
    tell(counts)
    console.print(f"存档已写入 archive written to {path}")


@cli.command()
def restored() -> None:
    """Run this after the database was restored from a backup: phones then start over instead of missing what came since."""
    opened()
    published.step_epoch()
    console.print("手机将重新同步 phones start over")


# --- staff -----------------------------------------------------------------------------------------------------------


@cli.group("staff")
def staff_() -> None:
    """Accounts, from the machine's own shell."""


@staff_.command("add")
@click.argument("name")
@click.option("--display-name", default="")
@click.option("--role", "roles", multiple=True, required=True, help="ROLE or ROLE:DIVISION, repeatable")
@click.password_option("--password", envvar="XINQIAO_STAFF_PASSWORD")
def staff_add(name: str, display_name: str, roles: tuple[str, ...], password: str) -> None:
    """Make an account."""
    opened()
    grants = [staff.Grant(role=r.partition(":")[0], division=r.partition(":")[2]) for r in roles]
    staff.create_account(name, display_name or name, password, SYSTEM, grants=grants, must_change=False)
    console.print(f"{name} made")


@staff_.command("disable")
@click.argument("name")
def staff_disable(name: str) -> None:
    """Close an account and sign it out everywhere; what it wrote stays."""
    opened()
    staff.disable(staff.by_name(name).id, SYSTEM)
    console.print(f"{name} disabled")


@staff_.command("passwd")
@click.argument("name")
@click.password_option("--password", envvar="XINQIAO_STAFF_PASSWORD")
def staff_passwd(name: str, password: str) -> None:
    """Set a password and sign the account out everywhere."""
    opened()
    staff.set_password(staff.by_name(name).id, password, SYSTEM)
    console.print(f"{name}: password set")


# --- doctor ----------------------------------------------------------------------------------------------------------


@cli.command()
def doctor() -> None:
    """Look at everything the service needs, one line each with the mend; exit status 1 when something is wrong."""
    bad = 0

    def say(name: str, problem: str, good: str = "ok") -> None:
        nonlocal bad
        bad += bool(problem)
        console.print(f"{'✗' if problem else '✓'} {name:<12} {problem or good}")

    settings = Settings.from_env()
    say("settings", "")
    if not settings.mongodb_uri:
        say("database", "no service runs here: start it with `make run`, or set MONGODB_URI")
        sys.exit(1)
    store.connect(settings)
    up = store.ping()
    say("database", "" if up else "does not answer: check MONGODB_URI, or that the service runs")
    if up:
        missing = store.missing_indexes()
        say("indexes", f"missing {', '.join(missing)}: run `xinqiao ensure-indexes`" if missing else "")
    say("bucket", "; ".join(objects.rights(settings)) if settings.s3_endpoint_url else "S3_ENDPOINT_URL is not set")
    say("ffmpeg", "", films.state())
    say("broker", broker_problem(settings))
    say("push", "", fcm.credentials_state(settings))
    say("webhook", "", f"notices are posted to {urlsplit(settings.webhook_url).netloc}" if settings.webhook_url else "none")
    say("quiet hours", "", f"{settings.quiet} {settings.zone}")
    inside = f"{settings.public()} is for this machine only: set XINQIAO_PUBLIC_URL, which stands in QR codes and share pages"
    say("address", "", settings.public_url or inside)
    if up:
        unread = Lesson.rows().count_documents({"reviewed_by": None})
        say("review", "", f"{unread} lessons reviewed by nobody yet" if unread else "ok")
    known, today = seasons.known_until(), datetime.now(ZoneInfo(settings.zone)).date()
    say(
        "calendar",
        "" if known > today else f"known until {known}: update content/library/seasons.yaml",
        f"known until {known}",
    )
    sys.exit(1 if bad else 0)


def broker_problem(settings: Settings) -> str:
    """Empty when Celery's broker takes a connection."""
    from notifications.worker import app

    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=3)
    except Exception as error:
        return f"does not answer ({type(error).__name__}): check BROKER_URL"
    return ""


def main() -> None:
    """Entry point: every expected failure is one line and exit status 1, never a traceback."""
    try:
        cli()
    except (SettingsError, embedded.CannotStart) as error:
        errors.print(f"xinqiao: {error}")
        sys.exit(1)
    except Exception as error:
        failure = store.failure_of(error)
        if failure is None and isinstance(error, OSError):
            errors.print(f"xinqiao: {error.filename or ''}: {error.strerror or error}")
            sys.exit(1)
        if failure is None:
            raise
        errors.print(f"xinqiao: {failure.messages['zh-Hans']} {failure.messages['en']}")
        for one in getattr(failure, "errors", []):
            errors.print(f"  {one.messages['zh-Hans']} {one.messages['en']}")
        sys.exit(1)


if __name__ == "__main__":
    main()
