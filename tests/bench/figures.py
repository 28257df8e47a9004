"""What the measurements say: ratios within a round, median, least and most over the rounds, tables, and the targets."""

import collections
import statistics

FAULTS = ("wrong", "broken", "lost", "doubled", "reordered", "failed")
TOLD_ONLY = ("reconnects", "behind")  # not the contender's doing alone
FULL_PERCENT = 95    # callers and backend share a core
DISTURBED_PERCENT = 8  # of a core, for the kernel's own work is in it
IDLE_PERCENT = 1  # of a core, by one that is not asked

# What a table shows, by kind of load: the column, the figure, its digits, and whether least and most are shown.
Column = collections.namedtuple("Column", "title key digits has_range", defaults=(False,))
COST = (Column("user", "user_us", 2), Column("system", "system_us", 2))
LATENCY = (Column("p50 µs", "p50_us", 0), Column("p99 µs", "p99_us", 0, True), Column("p99.9 µs", "p999_us", 0))
BUSY = (Column("of a core %", "own_percent", 0), Column("callers %", "callers_percent", 0),
        Column("backend %", "backend_percent", 0), Column("others %", "others_percent", 0), Column("idle %", "idle_percent", 2))
COLUMNS = {
    "requests": (Column("÷ nginx", "cpu_to_nginx", 2, True), Column("CPU µs/request", "cpu_us", 2, True), *COST,
                 Column("calls/request", "system_calls", 2), Column("requests/s", "per_s", 0), *LATENCY, *BUSY),
    "rate": (Column("CPU ÷ 1 worker", "cpu_to_one_worker", 2, True),
             Column("added p50 µs", "added_p50_us", 0, True), Column("÷ nginx", "added_p50_to_nginx", 2, True),
             Column("added p99 µs", "added_p99_us", 0, True), Column("÷ nginx", "added_p99_to_nginx", 2, True), *LATENCY,
             Column("CPU µs/request", "cpu_us", 2, True), *COST, Column("calls/request", "system_calls", 2), *BUSY),
    "streams": (Column("÷ nginx", "cpu_to_nginx", 2, True), Column("CPU µs/token", "cpu_us", 2, True), *COST,
                Column("calls/token", "system_calls", 2), Column("KiB/stream", "kib_a_stream", 1),
                Column("first p50 ms", "first_p50_ms", 1), Column("first p99 ms", "first_p99_ms", 1, True),
                Column("gap p50 ms", "gap_p50_ms", 1), Column("gap p99 ms", "gap_p99_ms", 1, True),
                Column("gap p99.9 ms", "gap_p999_ms", 1), *BUSY),
    "start": (Column("first answer ms", "start_ms", 1, True), Column("slowest ms", "start_most_ms", 1),
              Column("resident MiB", "resident_mib", 1), Column("of it its own MiB", "own_mib", 1)),
}

# What the gateway is to reach. `jobs` is how the key of a load begins; None as aim: there is none beyond.
Target = collections.namedtuple("Target", "jobs figure text reach aim digits")
TARGETS = (
    Target("a", "cpu_to_nginx", "CPU a request ÷ Nginx", 1.15, 1.0, 2),
    Target("b", "cpu_to_nginx", "CPU a request ÷ Nginx", 2.0, 1.3, 2),
    Target("c", "cpu_to_nginx", "CPU a token ÷ Nginx", 1.0, 0.8, 2),
    Target("c", "faults", "frames lost, doubled, reordered; streams failed", 0, None, 0),
    Target("c", "gap_p99_over_backend_ms", "gap p99 over the backend's own, ms", 10, None, 1),
    Target("c", "kib_a_stream", "resident a stream, KiB", 24, 12, 1),
    Target("d", "added_p50_to_nginx", "added p50 ÷ Nginx's", 1.0, 0.5, 2),
    Target("d", "added_p99_to_nginx", "added p99 ÷ Nginx's", 1.0, 0.5, 2),
    Target("e", "cpu_to_nginx", "CPU a refused request ÷ Nginx", 1.2, 1.0, 2),
    Target("w", "cpu_to_one_worker", "CPU a request, two workers ÷ one", 1.08, None, 2),
    Target("s", "start_ms", "start to first answer, ms", 50, None, 1),
    Target("s", "resident_mib", "memory when idle, MiB resident", 8, None, 1),
)


# --- from rounds to figures ---------------------------------------------------------------------------------------

def divided(one, other):
    return one / other if one is not None and other else None


def compare(said, nginx, backend, one_worker):
    """Adds to a measurement what it says beside those of the same round; any of them may not have been made."""
    if "busy_percent" in said:
        ours = said["own_percent"] + said["callers_percent"] + said["backend_percent"]
        said["others_percent"] = max(0, said["busy_percent"] - ours)
    said["faults"] = sum(said.get(fault, 0) for fault in FAULTS)
    if nginx and nginx.get("cpu_us"):
        said["cpu_to_nginx"] = divided(said.get("cpu_us"), nginx["cpu_us"])
    if one_worker:
        said["cpu_to_one_worker"] = divided(said.get("cpu_us"), one_worker.get("cpu_us"))
    if not backend or said is backend:
        return
    if "gap_p99_ms" in said:
        said["gap_p99_over_backend_ms"] = said["gap_p99_ms"] - backend["gap_p99_ms"]
    for name in ("p50", "p99"):
        if f"{name}_us" not in said:
            continue
        said[f"added_{name}_us"] = said[f"{name}_us"] - backend[f"{name}_us"]
        if nginx:
            said[f"added_{name}_to_nginx"] = divided(said[f"added_{name}_us"], nginx[f"{name}_us"] - backend[f"{name}_us"])


def compare_all(results):
    """`results`: by load and contender, one measurement a round."""
    for key, by_contender in results.items():
        for contender, rounds in by_contender.items():
            for number, said in enumerate(rounds):
                beside = {name: each[number] for name, each in by_contender.items()}
                one_worker = beside.get(contender.replace("2 workers", "1 worker")) if key == "w" else None
                compare(said, beside.get("nginx"), beside.get("backend alone"), one_worker)


def spread(values):
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def summary(results):
    """By load, contender and figure: least, median and most of the rounds."""
    said = {}
    for key, by_contender in results.items():
        said[key] = {}
        for contender, rounds in by_contender.items():
            names = dict.fromkeys(name for each in rounds for name in each)
            values = {name: [each[name] for each in rounds if each.get(name) is not None] for name in names}
            said[key][contender] = {name: spread(each) for name, each in values.items() if each}
    return said


def verdict(target, key, gateway, figure):
    """By the digits that are shown: 1.00 is 1."""
    value = figure and round(figure["max" if target.figure == "faults" else "median"], target.digits)
    return {"load": key, "gateway": gateway, "what": target.text, "figure": figure, "reach": target.reach, "aim": target.aim,
            "digits": target.digits, "met": None if value is None else value <= target.reach,
            "aim_met": None if value is None or target.aim is None else value <= target.aim}


def judged(said, gateways):
    """Every target beside what each gateway reached."""
    verdicts = []
    for target in TARGETS:
        for key, by_contender in said.items():
            for gateway in gateways:
                name = f"{gateway}, 2 workers" if key == "w" else gateway
                if key.startswith(target.jobs) and name in by_contender:
                    verdicts.append(verdict(target, key, gateway, by_contender[name].get(target.figure)))
    return verdicts


# --- tables -------------------------------------------------------------------------------------------------------

def shown(figure, digits, has_range=True):
    if not figure:
        return ""
    median = f"{figure['median']:.{digits}f}"
    if not has_range or figure["min"] == figure["max"]:
        return median
    return f"{median} [{figure['min']:.{digits}f} {figure['max']:.{digits}f}]"


def print_rows(rows):
    """Columns as wide as they must be; those with nothing below their title are left out."""
    kept = [column for column in range(len(rows[0])) if any(row[column] for row in rows[1:])]
    widths = {column: max(len(row[column]) for row in rows) for column in kept}
    for row in rows:
        print("  " + "  ".join(row[column].ljust(widths[column]) for column in kept).rstrip())


def faults_of(figures):
    return " ".join(f"{fault}={figures[fault]['max']:g}" for fault in (*FAULTS, *TOLD_ONLY)
                    if figures.get(fault, {"max": 0})["max"])


def most(by_contender, *names):
    return max((sum(figures[name]["median"] for name in names) for figures in by_contender.values() if names[0] in figures),
               default=0)


def say_what_disturbed(by_contender):
    full = most(by_contender, "callers_percent", "backend_percent")
    others = most(by_contender, "others_percent")
    if full >= FULL_PERCENT:
        print(f"  Callers and backend filled their core ({full:.0f} %): requests/s, delays and gaps are the machine's, costs are not.")
    if others >= DISTURBED_PERCENT:
        print(f"  Other programs took up to {others:.0f} % of a core: delays and gaps are theirs too.")
    idle = most(by_contender, "idle_percent")
    if idle >= IDLE_PERCENT:
        print(f"  A contender took up to {idle:.1f} % of a core while others were asked: it has disturbed them.")


def print_table(job, by_contender):
    columns = COLUMNS[job.kind]
    rows = [["", *(column.title for column in columns), "faults"]]
    for contender, figures in by_contender.items():
        rows.append([contender, *(shown(figures.get(column.key), column.digits, column.has_range) for column in columns),
                     "" if job.kind == "start" else faults_of(figures) or "none"])
    print(f"\n{job.title}")
    print_rows(rows)
    say_what_disturbed(by_contender)


def in_words(each):
    if each["met"] is None:
        return "could not be measured"
    if not each["met"]:
        return "NOT met"
    return "met, and the aim" if each["aim_met"] else "met"


def print_verdicts(verdicts):
    rows = [["", "gateway", "", "measured", "to reach", "aim", ""]]
    for each in verdicts:
        rows.append([f"({each['load'][0]}){each['load'][1:] and ' ' + each['load'][1:]}", each["gateway"], each["what"],
                     shown(each["figure"], each["digits"]), f"≤ {each['reach']:g}",
                     "" if each["aim"] is None else f"≤ {each['aim']:g}", in_words(each)])
    if len(rows) > 1:
        print("\nWhat is to be reached")
        print_rows(rows)
