// What a JDBC application does, in the simple, the prepared and the binary mode; prints what it got.
//
// Arguments: the host and port of a server. Run by scripts/suites.sh, which compares what two servers answer.

import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.sql.*;
import java.util.Arrays;
import java.util.Properties;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;

public class Smoke {
    private static String mode;

    public static void main(String[] arguments) throws Exception {
        String url = "jdbc:postgresql://" + arguments[0] + ":" + arguments[1] + "/suite";
        for (String[] one : new String[][] {
            {"simple", "preferQueryMode=simple"},
            {"extended", "preferQueryMode=extended&prepareThreshold=0"},
            {"prepared", "prepareThreshold=1&binaryTransfer=false"},
            {"binary", "prepareThreshold=-1&binaryTransfer=true"},
            {"cached", "preferQueryMode=extendedCacheEverything&prepareThreshold=2"},
        }) {
            mode = one[0];
            Properties properties = new Properties();
            properties.setProperty("user", "postgres");
            properties.setProperty("password", System.getenv("PGPASSWORD"));
            try (Connection connection = DriverManager.getConnection(url + "?" + one[1], properties)) {
                run("types", () -> types(connection));
                run("repeated", () -> repeated(connection));
                run("batch", () -> batch(connection));
                run("cursor", () -> cursor(connection));
                run("errors", () -> errors(connection));
                run("copy", () -> copy(connection));
                run("metadata", () -> metadata(connection));
                run("altered", () -> altered(connection));
                run("cancel", () -> cancel(connection));
            }
        }
    }

    private interface Test {
        String run() throws Exception;
    }

    private static void run(String name, Test test) {
        String outcome;
        try {
            outcome = test.run();
        } catch (SQLException error) {
            outcome = error.getSQLState() + " " + error.getMessage();
        } catch (Exception error) {
            outcome = error.toString();
        }
        System.out.println(mode + "/" + name + " " + outcome.replace('\n', ' '));
    }

    private static String types(Connection connection) throws Exception {
        String sql = "SELECT ?::int, ?::bigint, ?::numeric, ?::float8, ?::text, ?::date, ?::timestamptz, ?::bool, ?::bytea, ?::int[]";
        StringBuilder out = new StringBuilder();
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int round = 0; round < 8; round++) {
                statement.setInt(1, round);
                statement.setLong(2, Long.MAX_VALUE - round);
                statement.setBigDecimal(3, new BigDecimal("12345678901234567890.123"));
                statement.setDouble(4, 0.1 * round);
                statement.setString(5, "größe " + round);
                statement.setDate(6, Date.valueOf("2024-02-29"));
                statement.setTimestamp(7, Timestamp.valueOf("2024-02-29 12:34:56.789"));
                statement.setBoolean(8, round % 2 == 0);
                statement.setBytes(9, new byte[] {0, 1, (byte) round});
                statement.setArray(10, connection.createArrayOf("int4", new Object[] {1, null, round}));
                try (ResultSet rows = statement.executeQuery()) {
                    rows.next();
                    for (int column = 1; column <= 10; column++) {
                        boolean areBytes = column == 9;
                        out.append(areBytes ? Arrays.toString(rows.getBytes(column)) : rows.getString(column)).append(',');
                    }
                }
            }
        }
        return out.toString();
    }

    private static String repeated(Connection connection) throws Exception {
        int sum = 0;
        try (PreparedStatement statement =
                connection.prepareStatement("SELECT count(*), sum(g) FROM generate_series(1, ?) g")) {
            for (int round = 1; round <= 20; round++) {
                statement.setInt(1, round);
                try (ResultSet rows = statement.executeQuery()) {
                    rows.next();
                    sum += rows.getInt(1) + rows.getInt(2);
                }
            }
        }
        return Integer.toString(sum);
    }

    private static String batch(Connection connection) throws Exception {
        try (Statement statement = connection.createStatement()) {
            statement.execute("DROP TABLE IF EXISTS smoke; CREATE TABLE smoke (id int PRIMARY KEY, name text)");
        }
        int count = 0;
        try (PreparedStatement statement = connection.prepareStatement("INSERT INTO smoke VALUES (?, ?)")) {
            for (int id = 0; id < 500; id++) {
                statement.setInt(1, id);
                statement.setString(2, "name " + id);
                statement.addBatch();
            }
            for (int one : statement.executeBatch()) {
                count += one;
            }
        }
        try (PreparedStatement statement = connection.prepareStatement(
                "INSERT INTO smoke VALUES (?, 'again') RETURNING id", Statement.RETURN_GENERATED_KEYS)) {
            statement.setInt(1, 1000);
            statement.executeUpdate();
            ResultSet keys = statement.getGeneratedKeys();
            keys.next();
            count += keys.getInt(1);
        }
        return Integer.toString(count);
    }

    private static String cursor(Connection connection) throws Exception {
        connection.setAutoCommit(false);
        long sum = 0;
        try (Statement statement = connection.createStatement()) {
            // Fetches by Execute with a number of rows: the portal is suspended in between.
            statement.setFetchSize(7);
            try (ResultSet rows = statement.executeQuery("SELECT g FROM generate_series(1, 100) g")) {
                while (rows.next()) {
                    sum += rows.getLong(1);
                }
            }
        }
        Savepoint savepoint = connection.setSavepoint();
        try (Statement statement = connection.createStatement()) {
            statement.execute("SELECT 1/0");
        } catch (SQLException error) {
            connection.rollback(savepoint);
        }
        connection.commit();
        connection.setAutoCommit(true);
        return Long.toString(sum);
    }

    private static String errors(Connection connection) throws Exception {
        StringBuilder out = new StringBuilder();
        for (String sql : new String[] {"SELEC", "SELECT * FROM nowhere", "SELECT 1/0", "INSERT INTO smoke VALUES (1)"}) {
            try (Statement statement = connection.createStatement()) {
                statement.execute(sql);
            } catch (SQLException error) {
                out.append(error.getSQLState()).append(' ').append(error.getMessage()).append("; ");
            }
        }
        return out.toString();
    }

    private static String copy(Connection connection) throws Exception {
        CopyManager copies = connection.unwrap(PGConnection.class).getCopyAPI();
        long copied = copies.copyIn("COPY smoke FROM STDIN", new StringReader("2000\tx\n2001\ty\n"));
        StringWriter out = new StringWriter();
        copies.copyOut("COPY (SELECT * FROM smoke WHERE id >= 1000 ORDER BY id) TO STDOUT", out);
        return copied + " " + out;
    }

    private static String metadata(Connection connection) throws Exception {
        StringBuilder out = new StringBuilder();
        try (ResultSet rows = connection.getMetaData().getColumns(null, "public", "smoke", null)) {
            while (rows.next()) {
                out.append(rows.getString("COLUMN_NAME")).append(' ').append(rows.getString("TYPE_NAME")).append(',');
            }
        }
        try (PreparedStatement statement = connection.prepareStatement("SELECT id AS a, name FROM smoke WHERE id = ?")) {
            ResultSetMetaData columns = statement.getMetaData();
            out.append(columns.getColumnLabel(1)).append(columns.getColumnTypeName(2));
            out.append(statement.getParameterMetaData().getParameterTypeName(1));
        }
        return out.toString();
    }

    // A table that changes under a prepared statement.
    private static String altered(Connection connection) throws Exception {
        StringBuilder out = new StringBuilder();
        try (PreparedStatement statement = connection.prepareStatement("SELECT * FROM smoke WHERE id = 1");
                Statement other = connection.createStatement()) {
            for (int round = 0; round < 3; round++) {
                for (int at = 0; at < 6; at++) {
                    try (ResultSet rows = statement.executeQuery()) {
                        rows.next();
                        out.append(rows.getMetaData().getColumnCount()).append(rows.getString(2)).append(',');
                    } catch (SQLException error) {
                        out.append(error.getSQLState()).append(',');
                    }
                }
                other.execute("ALTER TABLE smoke ADD COLUMN c" + round + " int DEFAULT " + round);
            }
        }
        return out.toString();
    }

    private static String cancel(Connection connection) throws Exception {
        try (Statement statement = connection.createStatement()) {
            statement.setQueryTimeout(1);
            statement.execute("SELECT pg_sleep(30)");
            return "not cancelled";
        }
    }
}
