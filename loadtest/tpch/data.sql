-- Rows for schema.sql by clause 4.2.3 of the specification, at the scale that the setting corpus.scale says, the same at
-- every run. Numbers, dates, prices and keys are distributed as the clause demands. Comments are made of its words without
-- its grammar; what queries look for in them comes as often as the clause says, or more often where a small scale would
-- have none. The bytes are not dbgen's.

-- A number below `bound` that looks random, for column `salt` of row `line`.
CREATE FUNCTION pick(line bigint, salt int, bound bigint) RETURNS bigint IMMUTABLE LANGUAGE sql
    AS 'SELECT (hashint8extended(line, salt) & 4611686018427387903) % bound';

CREATE FUNCTION one_of(line bigint, salt int, choices text[]) RETURNS text IMMUTABLE LANGUAGE sql
    AS 'SELECT choices[1 + pick(line, salt, cardinality(choices))]';

CREATE FUNCTION rows_at_scale(at_one int) RETURNS int STABLE LANGUAGE sql
    AS 'SELECT greatest(1, (at_one * current_setting(''corpus.scale'')::numeric)::int)';

CREATE FUNCTION words(line bigint, salt int) RETURNS text IMMUTABLE LANGUAGE sql AS $$
    SELECT concat_ws(' ',
        one_of(line, salt, '{furiously,carefully,quickly,slyly,blithely,express,final,ironic,pending,bold,regular,even,silent}'),
        one_of(line, salt + 1, '{packages,requests,accounts,deposits,foxes,ideas,theodolites,instructions,pinto beans,dependencies}'),
        one_of(line, salt + 2, '{sleep,wake,nag,haggle,cajole,detect,integrate,boost,doze,use}'))
$$;

CREATE FUNCTION phone(line bigint, salt int, nation int) RETURNS text IMMUTABLE LANGUAGE sql AS $$
    SELECT concat_ws('-', nation + 10, 100 + pick(line, salt, 900), 100 + pick(line, salt + 1, 900), 1000 + pick(line, salt + 2, 9000))
$$;

INSERT INTO region
SELECT position - 1, name, words(position, 900) FROM unnest('{AFRICA,AMERICA,ASIA,EUROPE,MIDDLE EAST}'::text[]) WITH ORDINALITY AS r (name, position);

INSERT INTO nation
SELECT position - 1, split_part(entry, '/', 1), split_part(entry, '/', 2)::int, words(position, 910)
FROM unnest('{ALGERIA/0,ARGENTINA/1,BRAZIL/1,CANADA/1,EGYPT/4,ETHIOPIA/0,FRANCE/3,GERMANY/3,INDIA/2,INDONESIA/2,IRAN/4,IRAQ/4,JAPAN/2,JORDAN/4,KENYA/0,MOROCCO/0,MOZAMBIQUE/0,PERU/1,CHINA/2,ROMANIA/3,SAUDI ARABIA/4,VIETNAM/2,RUSSIA/3,UNITED KINGDOM/3,UNITED STATES/1}'::text[])
     WITH ORDINALITY AS n (entry, position);

INSERT INTO supplier
SELECT s, 'Supplier#' || lpad(s::text, 9, '0'), 'address ' || pick(s, 1, 1000000), nation, phone(s, 3, nation), (pick(s, 6, 1099999) - 99999) / 100.0,
       CASE pick(s, 7, 200) WHEN 0 THEN 'the Customer slyly Complaints' WHEN 1 THEN 'Customer express Recommends' ELSE words(s, 8) END
FROM generate_series(1, rows_at_scale(10000)) AS s, LATERAL (SELECT pick(s, 2, 25)::int) AS n (nation);

INSERT INTO customer
SELECT c, 'Customer#' || lpad(c::text, 9, '0'), 'address ' || pick(c, 11, 1000000), nation, phone(c, 13, nation), (pick(c, 16, 1099999) - 99999) / 100.0,
       one_of(c, 17, '{AUTOMOBILE,BUILDING,FURNITURE,HOUSEHOLD,MACHINERY}'), words(c, 18)
FROM generate_series(1, rows_at_scale(150000)) AS c, LATERAL (SELECT pick(c, 12, 25)::int) AS n (nation);

INSERT INTO part
SELECT p,
       -- Five words in a row of a list of colours, from any place of it: all are different.
       array_to_string((colours || colours)[1 + pick(p, 21, 20):5 + pick(p, 21, 20)], ' '),
       'Manufacturer#' || maker, 'Brand#' || maker || 1 + pick(p, 23, 5),
       one_of(p, 24, '{STANDARD,SMALL,MEDIUM,LARGE,ECONOMY,PROMO}') || ' ' || one_of(p, 25, '{ANODIZED,BURNISHED,PLATED,POLISHED,BRUSHED}') || ' ' ||
       one_of(p, 26, '{TIN,NICKEL,BRASS,STEEL,COPPER}'),
       1 + pick(p, 27, 50), one_of(p, 28, '{SM,LG,MED,JUMBO,WRAP}') || ' ' || one_of(p, 29, '{CASE,BOX,BAG,JAR,PKG,PACK,CAN,DRUM}'),
       (90000 + (p / 10) % 20001 + 100 * (p % 1000)) / 100.0, left(words(p, 30), 22)
FROM generate_series(1, rows_at_scale(200000)) AS p,
     LATERAL (SELECT 1 + pick(p, 22, 5)) AS m (maker),
     LATERAL (SELECT '{almond,forest,azure,green,beige,blush,coral,cream,dodger,firebrick,ghost,honeydew,indian,ivory,khaki,lemon,maroon,navajo,orchid,plum}'::text[]) AS c (colours);

INSERT INTO partsupp
SELECT p_partkey, (p_partkey + i * (suppliers / 4 + (p_partkey - 1) / suppliers)) % suppliers + 1, 1 + pick(line, 41, 9999), (100 + pick(line, 42, 99901)) / 100.0,
       words(line, 43)
FROM part, generate_series(0, 3) AS i, (SELECT rows_at_scale(10000)) AS s (suppliers), LATERAL (SELECT p_partkey::bigint * 4 + i) AS l (line)
ON CONFLICT DO NOTHING;

-- Lines before orders: an order's price and status follow from them. Of 32 keys 8 are used, and a third of customers never order.
CREATE TEMPORARY TABLE ordered AS
SELECT o, (o / 8) * 32 + o % 8 + 1 AS orderkey, custkey + CASE WHEN custkey % 3 = 0 THEN 1 ELSE 0 END AS custkey,
       date '1992-01-01' + pick(o, 52, 2406)::int AS orderdate, 1 + pick(o, 53, 7) AS lines
FROM generate_series(0, rows_at_scale(1500000) - 1) AS o, LATERAL (SELECT 1 + pick(o, 51, rows_at_scale(150000) - 1)) AS c (custkey);

CREATE TEMPORARY TABLE lines AS
SELECT orderkey, partkey,
       (partkey + pick(line, 62, 4) * (suppliers / 4 + (partkey - 1) / suppliers)) % suppliers + 1 AS suppkey, linenumber, quantity,
       quantity * (90000 + (partkey / 10) % 20001 + 100 * (partkey % 1000)) / 100.0 AS extendedprice, pick(line, 64, 11) / 100.0 AS discount,
       pick(line, 65, 9) / 100.0 AS tax, shipdate, orderdate + 30 + pick(line, 67, 61)::int AS commitdate, shipdate + 1 + pick(line, 68, 30)::int AS receiptdate, line
FROM ordered, (SELECT rows_at_scale(10000), rows_at_scale(200000)) AS s (suppliers, parts), LATERAL generate_series(1, lines) AS linenumber,
     LATERAL (SELECT o::bigint * 8 + linenumber) AS l (line),
     LATERAL (SELECT 1 + pick(line, 61, parts), 1 + pick(line, 63, 50), orderdate + 1 + pick(line, 66, 121)::int) AS v (partkey, quantity, shipdate);

INSERT INTO orders
SELECT ordered.orderkey, custkey, status, price, orderdate, one_of(o, 54, '{1-URGENT,2-HIGH,3-MEDIUM,4-NOT SPECIFIED,5-LOW}'),
       'Clerk#' || lpad((1 + pick(o, 55, rows_at_scale(1000)))::text, 9, '0'), 0,
       CASE WHEN pick(o, 56, 40) = 0 THEN 'special ' || words(o, 57) || ' requests' ELSE words(o, 57) END
FROM ordered
JOIN (
    SELECT orderkey, CASE WHEN min(shipdate) > '1995-06-17' THEN 'O' WHEN max(shipdate) <= '1995-06-17' THEN 'F' ELSE 'P' END AS status,
           sum(round(extendedprice * (1 + tax) * (1 - discount), 2)) AS price
    FROM lines GROUP BY orderkey
) AS totals USING (orderkey);

INSERT INTO lineitem
SELECT orderkey, partkey, suppkey, linenumber, quantity, extendedprice, discount, tax,
       CASE WHEN receiptdate <= '1995-06-17' THEN one_of(line, 69, '{R,A}') ELSE 'N' END, CASE WHEN shipdate > '1995-06-17' THEN 'O' ELSE 'F' END,
       shipdate, commitdate, receiptdate, one_of(line, 70, '{DELIVER IN PERSON,COLLECT COD,NONE,TAKE BACK RETURN}'),
       one_of(line, 71, '{REG AIR,AIR,RAIL,SHIP,TRUCK,MAIL,FOB}'), words(line, 72)
FROM lines;

DROP TABLE lines, ordered;
ANALYZE;
