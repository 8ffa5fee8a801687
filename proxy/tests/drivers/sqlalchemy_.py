"""SQLAlchemy 2.0 with both drivers through pgstar: python sqlalchemy_.py DIRECT THROUGH."""

import sys

from sqlalchemy import MetaData, and_, create_engine, desc, distinct, func, inspect, select, text
from sqlalchemy.orm import Session
from ssb import QUERIES, same

DIRECT, THROUGH = sys.argv[1:]


def statements(tables):
    fact, day, part, supplier, customer = (tables[name] for name in ("lineorder", "date", "part", "supplier", "customer"))
    by_day = fact.join(day, fact.c.lo_orderdate == day.c.d_datekey)
    places = by_day.join(customer, fact.c.lo_custkey == customer.c.c_custkey).join(
        supplier, fact.c.lo_suppkey == supplier.c.s_suppkey
    )
    revenue = func.sum(fact.c.lo_revenue).label("revenue")
    nations = (
        select(day.c.d_year, customer.c.c_nation, supplier.c.s_nation, revenue)
        .select_from(places)
        .where(and_(customer.c.c_region == "ASIA", supplier.c.s_region == "ASIA", day.c.d_year.between(1992, 1997)))
        .group_by(day.c.d_year, customer.c.c_nation, supplier.c.s_nation)
    )
    yield select(day.c.d_year, revenue).select_from(by_day).group_by(day.c.d_year)
    yield select(day.c.d_year, revenue).select_from(by_day).group_by(day.c.d_year).order_by(desc("revenue")).limit(3)
    yield nations
    yield nations.where(day.c.d_year.in_([1993, 1995])).having(func.sum(fact.c.lo_revenue) > 1000)
    yield select(func.count()).select_from(fact)
    yield select(distinct(day.c.d_year)).select_from(by_day)
    # As dashboards wrap what people wrote: the query as a sub-select, its label grouped by.
    inner = select(day.c.d_year.label("year"), fact.c.lo_revenue.label("amount")).select_from(by_day).subquery("virtual_table")
    yield select(inner.c.year, func.sum(inner.c.amount)).group_by(inner.c.year).order_by(func.sum(inner.c.amount).desc()).limit(1000)
    yield (
        select(day.c.d_year, part.c.p_brand1, revenue)
        .select_from(by_day.join(part, fact.c.lo_partkey == part.c.p_partkey).join(supplier, fact.c.lo_suppkey == supplier.c.s_suppkey))
        .where(part.c.p_category == "MFGR#12", supplier.c.s_region == "AMERICA")
        .group_by(day.c.d_year, part.c.p_brand1)
    )
    yield select(func.avg(fact.c.lo_quantity), func.max(fact.c.lo_tax)).select_from(fact)
    yield from (text(sql) for sql in QUERIES.values())


def run(engine, tables):
    found = []
    with engine.connect() as connection:
        for statement in statements(tables):
            for _ in range(2):
                result = connection.execute(statement)
                found.append((list(result.keys()), sorted(result.fetchall(), key=repr)))
    with Session(engine) as session, session.begin():
        found.append(session.scalars(next(statements(tables))).all())
        session.execute(text("CREATE TEMP TABLE note (id int) ON COMMIT DROP"))
        session.execute(text("INSERT INTO note VALUES (:id)"), [{"id": 1}, {"id": 2}])
        found.append(session.execute(text("SELECT count(*) FROM note")).scalar_one())
        found.append(sorted(session.scalars(next(statements(tables))).all()))
    with engine.connect().execution_options(stream_results=True) as connection:
        rows = connection.execute(next(statements(tables)))
        found.append(sorted(tuple(row) for part in rows.partitions(3) for row in part))
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        found.append(sorted(tuple(row) for row in connection.execute(next(statements(tables)))))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        found.append(sorted(tuple(row) for row in connection.execute(next(statements(tables)))))
    return [sorted(one, key=repr) if isinstance(one, list) else one for one in found]


def catalog(engine):
    inspector = inspect(engine)
    return [
        (name, [(c["name"], str(c["type"])) for c in inspector.get_columns(name)], inspector.get_pk_constraint(name), inspector.get_foreign_keys(name))
        for name in sorted(inspector.get_table_names())
    ]


for driver in ("psycopg", "psycopg2"):
    engines = [create_engine(url.replace("postgresql:", f"postgresql+{driver}:"), pool_pre_ping=True) for url in (DIRECT, THROUGH)]
    same(catalog(engines[0]), catalog(engines[1]), f"{driver}: catalog")
    metadata = MetaData()
    metadata.reflect(engines[1])
    same(run(engines[0], metadata.tables), run(engines[1], metadata.tables), driver)
    for engine in engines:
        engine.dispose()
print("all done")
