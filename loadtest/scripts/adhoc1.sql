-- choose mode: REG AIR, AIR, RAIL, TRUCK, MAIL, FOB, SHIP
\set cost random(54000, 100000)
select lo_orderpriority, lo_tax, count(*), avg(lo_extendedprice), max(lo_ordtotalprice)
from lineorder
where lo_supplycost > :cost
and lo_shipmode <> ':mode'
group by lo_orderpriority, lo_tax
order by lo_orderpriority, lo_tax;
