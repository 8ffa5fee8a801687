"""The thirteen queries of the Star Schema Benchmark, read from where the load test has them, and a comparison."""

import pathlib

QUERIES = {
    path.stem: path.read_text().strip().rstrip(";")
    for path in sorted((pathlib.Path(__file__).parents[3] / "loadtest/queries").glob("q*.sql"))
}
assert len(QUERIES) == 13, QUERIES.keys()

BY_REGION = (
    "SELECT d_year, c_nation, sum(lo_revenue) AS revenue FROM customer, lineorder, supplier, date"
    " WHERE lo_custkey = c_custkey AND lo_suppkey = s_suppkey AND lo_orderdate = d_datekey"
    " AND c_region = %(region)s AND s_region = %(other)s AND d_year BETWEEN %(first)s AND %(last)s"
    " GROUP BY d_year, c_nation"
)
PARAMETERS = [
    {"region": "ASIA", "other": "ASIA", "first": 1992, "last": 1997},
    {"region": "EUROPE", "other": "AMERICA", "first": 1995, "last": 1995},
    {"region": "it's", "other": "ASIA", "first": 1992, "last": 1997},
]


def same(direct, through, what):
    """Asserts equality, whatever the order of rows."""
    if isinstance(direct, list):
        direct, through = sorted(direct, key=repr), sorted(through, key=repr)
    assert direct == through, f"{what}:\n  direct  {direct!r}\n  through {through!r}"
