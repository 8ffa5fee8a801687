\set month random(1992, 1997) * 100 + random(1, 12)
\set low random(0, 8)
\set high :low + 2
\set quantity random(1, 41)
\set quantity_high :quantity + 9
select sum(lo_extendedprice*lo_discount) as revenue
from lineorder, date
where lo_orderdate = d_datekey
and d_yearmonthnum = :month
and lo_discount between :low and :high
and lo_quantity between :quantity and :quantity_high;
