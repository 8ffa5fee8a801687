\set year random(1992, 1998)
\set low random(0, 8)
\set high :low + 2
\set quantity random(20, 30)
select sum(lo_extendedprice*lo_discount) as revenue
from lineorder, date
where lo_orderdate = d_datekey
and d_year = :year
and lo_discount between :low and :high
and lo_quantity < :quantity;
