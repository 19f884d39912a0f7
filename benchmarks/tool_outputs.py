"""What tools answer, generated: JSON, logs, listings, tables, traces and reports, each with its facts."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

SENTENCES = (
    "The deployment was rolled back because the health check kept failing on {host} after about {ms}.",
    "Customers reported that invoice {ticket} was charged twice, in total {money}, and asked for a refund.",
    "We could not reproduce the problem on the staging cluster, but the log of {request} shows the same pattern.",
    "As far as anyone can tell, the connection pool was exhausted and every new request had to wait in the queue.",
    "Please have a look at {path} and tell us whether the change from {commit} is really needed.",
    "The nightly job copied {size} from {host} to the archive and finished on {date} without any further warning.",
    "It seems that most of the time is spent waiting for the database, which is something we have seen before.",
    "The owner of the account can be reached at {email}, preferably in the morning or late in the evening.",
    "After the upgrade to {version} the memory usage went down quite a bit and the alerts became less frequent.",
    "There is a longer discussion with screenshots and a proposal at {url} for those who want the details.",
    "Nobody on the team remembers why the retry limit was set to this value in the first place.",
    "The worker {pod} restarted several times in a row and then came up again as if nothing had happened.",
)
TITLES = (
    "Timeout when saving",
    "Crash on start",
    "Wrong total in report",
    "Slow search",
    "Login loop",
    "Broken export",
)
SERVICES = ("payments-api", "search-indexer", "auth-gateway", "mail-worker", "billing-sync")
NAMES = ("ana", "ben", "chloe", "dmitri", "elif", "farid", "grace", "hiro")


@dataclass(frozen=True)
class Document:
    """facts: identifiers, numbers with units, paths and the like that the text holds and a reader may need."""

    kind: str
    text: str
    facts: tuple[str, ...]

    @property
    def is_json(self) -> bool:
        return self.kind.startswith("json")


class Facts:
    """Makes facts, and remembers them."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.made: list[str] = []

    def of(self, name: str) -> str:
        fact: str = getattr(self, f"_{name}")()
        self.made.append(fact)
        return fact

    def sentence(self) -> str:
        sentence = self.rng.choice(SENTENCES)
        names = [part.split("}")[0] for part in sentence.split("{")[1:]]
        return sentence.format(**{name: self.of(name) for name in names})

    def prose(self, least: int, most: int) -> str:
        return " ".join(self.sentence() for _ in range(self.rng.randint(least, most)))

    def _hex(self, digits: int) -> str:
        return f"{self.rng.getrandbits(4 * digits):0{digits}x}"

    def _host(self) -> str:
        address = ".".join(str(self.rng.randrange(1, 255)) for _ in range(3))
        return f"10.{address}:{self.rng.choice((80, 443, 8080, 5432))}"

    def _ms(self) -> str:
        return f"{self.rng.randrange(2, 9000)} ms"

    def _ticket(self) -> str:
        return f"INV-{self.rng.randrange(10_000, 99_999)}"

    def _money(self) -> str:
        return f"${self.rng.randrange(1, 90)},{self.rng.randrange(100, 999)}.{self.rng.randrange(10, 99)}"

    def _request(self) -> str:
        return f"req-{self._hex(12)}"

    def _path(self) -> str:
        service = self.rng.choice(SERVICES)
        return f"/srv/{service}/{self.rng.choice(('main', 'db', 'cache'))}_{self.rng.randrange(99)}.py"

    def _commit(self) -> str:
        return "a" + self._hex(6) + "0"

    def _sha(self) -> str:
        return self._hex(40)

    def _node(self) -> str:
        return f"ip-10-0-{self.rng.randrange(256)}-{self.rng.randrange(256)}.ec2.internal"

    def _size(self) -> str:
        return f"{self.rng.randrange(2, 900)}.{self.rng.randrange(9)} GB"

    def _date(self) -> str:
        return f"2024-{self.rng.randrange(1, 13):02d}-{self.rng.randrange(1, 29):02d}"

    def _email(self) -> str:
        return f"{self.rng.choice(NAMES)}+{self.rng.randrange(99)}@example.org"

    def _version(self) -> str:
        return f"v{self.rng.randrange(9)}.{self.rng.randrange(30)}.{self.rng.randrange(20)}-rc.{self.rng.randrange(9)}"

    def _url(self) -> str:
        return (
            f"https://git.example.org/{self.rng.choice(SERVICES)}/issues/{self.rng.randrange(9999)}?tab={self._hex(4)}"
        )

    def _pod(self) -> str:
        return f"{self.rng.choice(SERVICES)}-{self._hex(9)}-x{self._hex(4)}"

    def _uuid(self) -> str:
        return "-".join(self._hex(n) for n in (8, 4, 4, 4, 12))

    def _number(self) -> str:
        return str(self.rng.randrange(1_000, 9_999_999))


# --- JSON -------------------------------------------------------------------------------------------------------------


def issue(facts: Facts) -> dict[str, object]:
    return {
        "id": int(facts.of("number")),
        "title": facts.rng.choice(TITLES),
        "state": facts.rng.choice(("open", "closed")),
        "user": {"login": facts.rng.choice(NAMES), "id": int(facts.of("number")), "site_admin": False},
        "html_url": facts.of("url"),
        "labels": [{"name": "bug", "color": "d73a4a"}],
        "comments": facts.rng.randrange(40),
        "body": facts.prose(3, 7),
    }


def json_issues(facts: Facts) -> str:
    return json.dumps([issue(facts) for _ in range(facts.rng.randint(4, 12))], indent=2)


def json_search(facts: Facts) -> str:
    hits = [
        {"rank": i, "url": facts.of("url"), "title": facts.rng.choice(TITLES), "snippet": facts.prose(2, 4)}
        for i in range(facts.rng.randint(5, 12))
    ]
    return json.dumps({"query": "timeout", "total": int(facts.of("number")), "results": hits})


def json_pods(facts: Facts) -> str:
    items = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": facts.of("pod"),
                "namespace": "prod",
                "uid": facts.of("uuid"),
                "labels": {"tier": "web"},
            },
            "spec": {
                "nodeName": facts.of("host"),
                "restartPolicy": "Always",
                "containers": [
                    {
                        "name": "app",
                        "image": f"registry/{facts.of('version')}",
                        "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    }
                ],
            },
            "status": {
                "phase": "Running",
                "podIP": facts.of("host"),
                "startTime": facts.of("date"),
                "message": facts.prose(1, 2),
            },
        }
        for _ in range(facts.rng.randint(4, 12))
    ]
    return json.dumps({"kind": "List", "items": items}, indent=4)


def json_page(facts: Facts) -> str:
    content = "\n\n".join(facts.prose(2, 5) for _ in range(facts.rng.randint(3, 8)))
    return json.dumps({"url": facts.of("url"), "status": 200, "content": content, "bytes": int(facts.of("number"))})


def json_lines(facts: Facts) -> str:
    rows = (
        {
            "ts": f"2024-05-01T10:{i:02d}:00Z",
            "event": "ticket.updated",
            "id": facts.of("uuid"),
            "note": facts.prose(1, 3),
        }
        for i in range(facts.rng.randint(5, 20))
    )
    return "\n".join(map(json.dumps, rows))


# --- logs and listings ------------------------------------------------------------------------------------------------


def clock(facts: Facts, i: int) -> str:
    return f"2024-05-01T10:{i // 60:02d}:{i % 60:02d}.{facts.rng.randrange(1000):03d}Z"


def app_log(facts: Facts) -> str:
    lines = []
    for i in range(facts.rng.randint(30, 120)):
        head = f"{clock(facts, i)} INFO  [http-worker] c.e.api.RequestHandler -"
        lines.append(
            f"{head} request {facts.of('request')} from {facts.of('host')} "
            f"completed with status 200 after {facts.of('ms')}"
        )
        if facts.rng.random() < 0.08:
            lines.append(f"{clock(facts, i)} ERROR [http-worker] c.e.api.RequestHandler - {facts.sentence()}")
    return "\n".join(lines)


def access_log(facts: Facts) -> str:
    agent = '"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0 Safari/537.36"'
    return "\n".join(
        f"{facts.of('host').split(':')[0]} - - [01/May/2024:10:{i // 60:02d}:{i % 60:02d} +0000] "
        f'"GET {facts.of("path")} HTTP/1.1" 200 {facts.of("number")} "-" {agent}'
        for i in range(facts.rng.randint(20, 80))
    )


def kubectl(facts: Facts) -> str:
    head = f"{'NAME':<44}{'READY':<8}{'STATUS':<20}{'RESTARTS':<12}{'AGE':<8}{'IP':<24}NODE"
    rows = [
        f"{facts.of('pod'):<44}{'1/1':<8}{facts.rng.choice(('Running', 'Running', 'CrashLoopBackOff')):<20}"
        f"{facts.rng.randrange(9):<12}{facts.rng.randrange(1, 90)}d     {facts.of('host'):<24}{facts.of('node')}"
        for _ in range(facts.rng.randint(8, 40))
    ]
    return "\n".join([head, *rows])


def git_log(facts: Facts) -> str:
    return "\n".join(
        f"commit {facts.of('sha')}\nAuthor: {facts.rng.choice(NAMES).title()} <{facts.of('email')}>\n"
        f"Date:   Wed May 1 10:{i:02d}:00 2024 +0200\n\n    {facts.rng.choice(TITLES)}\n\n    {facts.prose(1, 3)}\n"
        for i in range(facts.rng.randint(5, 15))
    )


def listing(facts: Facts) -> str:
    rows = (
        f"-rw-r--r--  1 deploy deploy {facts.of('number'):>10} May  1 10:{i:02d} {facts.of('path').rsplit('/')[-1]}"
        for i in range(facts.rng.randint(10, 50))
    )
    return "total 4096\n" + "\n".join(rows) + "\n"


def trace(facts: Facts) -> str:
    frames = "".join(
        f'  File "{facts.of("path")}", line {facts.rng.randrange(999)}, in handle_{i}\n'
        "    return self.client.call(request, timeout=timeout, retries=retries)\n"
        for i in range(facts.rng.randint(8, 25))
    )
    error = f"TimeoutError: {facts.of('request')} took {facts.of('ms')}"
    return f"Traceback (most recent call last):\n{frames}{error}\n\n{facts.prose(2, 6)}\n"


# --- tables and prose -------------------------------------------------------------------------------------------------


def csv_table(facts: Facts) -> str:
    rows = (
        f'{facts.of("ticket")},{facts.of("date")},{facts.rng.choice(NAMES)},"{facts.prose(1, 3)}",{facts.of("number")}'
        for _ in range(facts.rng.randint(8, 30))
    )
    return "ticket,created,owner,description,amount\n" + "\n".join(rows) + "\n"


def markdown_table(facts: Facts) -> str:
    rows = (
        f"| {facts.of('ticket')} | {facts.of('commit')} | {facts.prose(1, 2)} |"
        for _ in range(facts.rng.randint(6, 25))
    )
    return "| ticket | commit | what happened |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def report(facts: Facts) -> str:
    return "\n\n".join(facts.prose(3, 6) for _ in range(facts.rng.randint(3, 9)))


def mail(facts: Facts) -> str:
    head = f"From: {facts.of('email')}\nTo: {facts.of('email')}\nMessage-ID: <{facts.of('uuid')}@example.org>\n"
    head += f"Subject: {facts.rng.choice(TITLES)}\n\n"
    return (
        head + "Hello,\n\n" + "\n\n".join(facts.prose(2, 4) for _ in range(facts.rng.randint(2, 5))) + "\n\nRegards\n"
    )


KINDS: dict[str, Callable[[Facts], str]] = {
    "json issues": json_issues,
    "json search": json_search,
    "json pods": json_pods,
    "json page": json_page,
    "json lines": json_lines,
    "app log": app_log,
    "access log": access_log,
    "kubectl": kubectl,
    "git log": git_log,
    "ls -l": listing,
    "trace": trace,
    "csv": csv_table,
    "markdown": markdown_table,
    "report": report,
    "mail": mail,
}


def document(kind: str, seed: int) -> Document:
    facts = Facts(random.Random(f"{kind} {seed}"))
    text = KINDS[kind](facts)
    return Document(kind, text, tuple(dict.fromkeys(fact for fact in facts.made if fact in text)))


def documents(each: int) -> list[Document]:
    """`each` of every kind."""
    return [document(kind, seed) for kind in KINDS for seed in range(each)]
