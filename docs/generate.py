"""Write the reference documentation from the code it documents.

``python docs/generate.py`` writes it. With ``--check`` it names the files that differ, and exits 1. The result depends
only on the code, not on environment, machine or date.
"""

from __future__ import annotations

import argparse
import json
import sys
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Final

from advice import ADVICE
from contracts import asyncapi, default_settings, schemas
from feature_page import OTHER_CODES, feature_page
from markdown_parts import names, page, table
from metrics_table import metric_rows
from settings_table import HEADER, setting_groups

from fraud_service.config import settings
from fraud_service.domain import decision, reasons
from fraud_service.domain.errors import DeadLetterReason
from fraud_service.domain.events import MAX_EVENT_BYTES, MAX_KEY_BYTES, LabelSource
from fraud_service.domain.label_join import Ignored
from fraud_service.domain.text import visible_json
from fraud_service.kafka import topics
from fraud_service.runtime.metrics.learner import LearnerMetrics
from fraud_service.runtime.metrics.scorer import MAX_CURRENCIES, ScorerMetrics
from fraud_service.runtime.metrics.stream import StreamMetrics, TokenizerMetrics
from fraud_service.security.signatures import RejectReason

if TYPE_CHECKING:
    from collections.abc import Sequence
    from enum import Enum


DOCS: Final = Path(__file__).resolve().parent


def pages() -> dict[str, str]:
    """Return each generated file: path below `docs/` and text."""
    described = {f"schemas/{slug}.schema.json": _json(schema) for slug, schema in schemas().items()}
    return described | {
        "asyncapi.json": _json(asyncapi()),
        "features.md": feature_page(),
        "configuration.md": configuration_page(),
        "metrics.md": metrics_page(),
        "topics.md": topics_page(),
        "dead-letters.md": dead_letters_page(),
    }


def configuration_page() -> str:
    """Write the tables of settings."""
    tables = [part for title, rows in setting_groups() for part in (f"## {title}", table(HEADER, rows))]
    return page(
        "Configuration",
        f"Every setting is an environment variable. An unknown name that begins with `{settings.PREFIX}` stops the "
        "start, and the error suggests the nearest known one. `fraud-service config` prints the values in use.",
        "A *duration* is a number and its unit: `500ms`, `45s`, `15m`, `1h` or `7d`. A number without a unit stops the "
        "start. Some defaults depend on the installation: `host name` is the name of the machine, `shipped` the model "
        "in the package, and `last` the last key by name.",
        *tables,
    )


def metrics_page() -> str:
    """Write the tables of metrics."""
    common, header = metric_rows(StreamMetrics), ("metric", "type", "labels", "meaning")
    parts = {
        "Scorer, learner and tokenizer": StreamMetrics,
        "Scorer": ScorerMetrics,
        "Learner": LearnerMetrics,
        "Tokenizer": TokenizerMetrics,
    }
    tables = []
    for title, kind in parts.items():
        rows = [row for row in metric_rows(kind) if kind is StreamMetrics or row not in common]
        shown = ((f"`{row.name}`", row.kind, names(row.labels) or "—", row.meaning) for row in rows)
        tables += [f"## {title}", table(header, shown)]
    return page(
        "Metrics",
        "Each process serves its metrics at `/metrics`. A histogram has the series `…_bucket`, `…_sum` and `…_count`. "
        "The Prometheus client adds `…_created`, `python_info` and, on Linux, `process_…`.",
        *tables,
        "## Label values",
        table(("label", "values"), _label_values().items()),
    )


def _label_values() -> dict[str, str]:
    def members(kind: type[Enum]) -> str:
        return names(str(member.value) for member in kind)

    codes = (*reasons.CODES, *OTHER_CODES)
    return {
        "`outcome`": members(decision.Outcome),
        "`is_fraud`": names(("true", "false")),
        "`role`": names((ScorerMetrics.ROLE, LearnerMetrics.ROLE, TokenizerMetrics.ROLE)),
        "`kind`": names(("transaction", "label")),
        "`replaced`": names(("true", "false")),
        "`source`": members(LabelSource),
        "`component`": names(("pretrained", "online")),
        "`code`": f"{names(codes)}: see [features](features.md#reason-codes)",
        "`currency`": f"the first {MAX_CURRENCIES} currencies that a process reads; all others are `other`",
        "`cause`": f"{members(Ignored)}: see the [runbook](runbook.md#fraudscoresforgotten)",
        "`rejection`": f"{members(RejectReason)}. `replayed`: sent a second time. `invalid`: signed, but unreadable",
        "`reason`": f"{members(DeadLetterReason)}: see [dead letters](dead-letters.md)",
        "`partition`": "number of an assigned input partition",
        "`pretrained`": "version of the pretrained model in use",
        "`snapshot`": "version of the newest snapshot",
    }


def topics_page() -> str:
    """Write the table of topics."""
    rows = [
        (spec.role, f"`{spec.name}`", spec.key.replace("<", "&lt;"), str(spec.partitions), _kept(spec), spec.content)
        for spec in topics.topic_specs(default_settings())
    ]
    return page(
        "Topics",
        "`fraud-service topics create` creates these topics. [AsyncAPI](asyncapi.json) describes their messages.",
        table(("role", "default name", "key", "partitions", "cleanup and retention", "content"), rows),
        cleandoc("""
        * You can change the names (`FRAUD_TOPICS__…`). Where the table has more than one partition, you can change the
          number (`FRAUD_PARTITIONS`).
        * Transactions, labels, scores and both changelogs need the same number of partitions, because the service joins
          the records of a card by partition.
        * Producers of transactions and labels must use the murmur2 partitioner.
        * The name of a changelog contains the consumer group and the topic.
        """),
    )


def _kept(spec: topics.TopicSpec) -> str:
    days = "for ever" if spec.retention_ms == topics.FOREVER else f"{spec.retention_ms // topics.DAY_MS} days"
    return ", ".join([f"{spec.cleanup}, {days}", *(f"`{name}={value}`" for name, value in spec.extra.items())])


def dead_letters_page() -> str:
    """Write the table of dead-letter reasons, and how to send a letter again."""
    rows = (
        (f"`{reason}`", ADVICE[reason].where, ADVICE[reason].meaning, ADVICE[reason].remedy)
        for reason in DeadLetterReason
    )
    return page(
        "Dead letters",
        "A record that fails a check does not stop the service. It becomes a dead letter: a record with the same key "
        "and value on the topic of dead letters, with the reason in its headers. `fraud_dead_letters_total` counts "
        "dead letters by reason.",
        table(("reason", "found on", "what it means", "what its producer should do"), rows),
        _dead_letter_headers(),
        _redrive(),
    )


def _dead_letter_headers() -> str:
    return cleandoc(f"""
    ## Headers

    | header | content |
    | --- | --- |
    | `fraud-reason`, `fraud-detail` | the reason, and an explanation |
    | `fraud-source-topic`, `fraud-source-partition`, `fraud-source-offset` | the place of the source record |
    | `fraud-content-length`, `fraud-content-sha256` | instead of a value of more than {MAX_EVENT_BYTES:,} bytes |
    | `fraud-key-length`, `fraud-key-sha256` | instead of a key of more than {MAX_KEY_BYTES} bytes |
    | `fraud-masked` | the letter had card data; in value and key, its kind in brackets replaces it |
    """)


def _redrive() -> str:
    return cleandoc("""
    ## Send a letter again

    | command | effect |
    | --- | --- |
    | `fraud-service dead-letters list` | lists letters; the totals by reason go to stderr |
    | `fraud-service dead-letters show PARTITION OFFSET` | prints one letter, with control characters escaped |
    | the same with `--raw > FILE` | writes the value byte for byte |
    | `fraud-service dead-letters redrive` | lists the records that it would send to their source topics |
    | the same with `--yes` | sends them |
    | the same with `--value-from FILE` | sends repaired bytes for one letter |

    * A record that `redrive` sends has the broker timestamp of the redrive. If its key was missing or wrong, its key is
      now the `card_id`.
    * No letter is sent twice. `redrive` writes the record and a mark on the topic of dead letters
      (`fraud-redriven-offset`) in one Kafka transaction. If two redrives run at once, Kafka fences the first.
    * `redrive` sends only to the topics of transactions and labels, raw ones included.
    * `redrive` compares each letter with its source record. If that record differs or never existed, the letter is
      forged. Then `redrive` does not send it, and exits with 1.
    * A letter is unproved if retention has removed its source record. It is also unproved if scorers accept that record
      today, because they may have scored it. Check such a letter, then send it with `--unproved`.
    * A masked letter has lost its content, so `redrive` can compare only the place.
    * `redrive` skips records that are neither letters nor marks, and logs their number.
    """)


def _json(document: object) -> str:
    return visible_json(json.dumps(document, indent=2, ensure_ascii=False)) + "\n"


def differences(folder: Path) -> list[str]:
    """Return the paths of files that are missing, differ, or belong to no message."""
    wanted = pages()
    there = {path.relative_to(folder).as_posix() for path in folder.glob("schemas/*.schema.json")}
    changed = {name for name, text in wanted.items() if not _holds(folder / name, text)}
    return sorted(changed | (there - set(wanted)))


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def write(folder: Path) -> list[str]:
    """Update a folder, and return the paths that it wrote or removed."""
    wanted, changed = pages(), differences(folder)
    for name in changed:
        if name not in wanted:
            (folder / name).unlink()
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(wanted[name].encode())
    return changed


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check, and return the exit status."""
    parser = argparse.ArgumentParser(description="Write the reference documentation from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when something differs")
    is_check = parser.parse_args(arguments).check
    changed = differences(DOCS) if is_check else write(DOCS)
    for name in changed:
        sys.stdout.write(f"docs/{name} {'differs: run `python docs/generate.py`' if is_check else 'written'}\n")
    return int(is_check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
