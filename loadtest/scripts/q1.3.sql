\set year random(1992, 1997)
\set week random(1, 53)
\set low random(0, 8)
\set high :low + 2
\set quantity random(1, 41)
\set quantity_high :quantity + 9
select sum(lo_extendedprice*lo_discount) as revenue
from lineorder, date
where lo_orderdate = d_datekey
and d_weeknuminyear = :week
and d_year = :year
and lo_discount between :low and :high
and lo_quantity between :quantity and :quantity_high;
