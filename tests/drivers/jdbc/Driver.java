// JDBC: Driver simple | extended | extendedForPrepared | extendedCacheEverything (its preferQueryMode)
import java.io.StringReader;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.SQLWarning;
import java.sql.Statement;
import java.sql.Types;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.postgresql.PGConnection;

public class Driver {
    static Connection connection;

    public static void main(String[] arguments) throws Exception {
        Properties properties = new Properties();
        properties.setProperty("user", env("PGUSER"));
        properties.setProperty("password", env("PGPASSWORD"));
        properties.setProperty("sslmode", "verify-full");
        properties.setProperty("sslrootcert", env("PGSSLROOTCERT"));
        properties.setProperty("preferQueryMode", arguments[0]);
        // From the second execution on, a statement of the server's that has a name.
        properties.setProperty("prepareThreshold", "2");
        String url = "jdbc:postgresql://" + env("PGHOST") + ":" + env("PGPORT") + "/" + env("PGDATABASE");
        connection = DriverManager.getConnection(url, properties);
        List<?> steps = (List<?>) new Json(Files.readString(Path.of(env("GATEBOOK_SCRIPT")))).value();
        for (int at = 0; at < steps.size(); at++) {
            Map<?, ?> step = (Map<?, ?>) steps.get(at);
            try {
                run(at, step);
            } catch (SQLException error) {
                String server = error instanceof org.postgresql.util.PSQLException known && known.getServerErrorMessage() != null
                    ? known.getServerErrorMessage().getMessage() : error.getMessage();
                say(at, "error", error.getSQLState(), server);
                // A batch's own error hides the server's behind it.
                for (SQLException next = error.getNextException(); next != null; next = next.getNextException()) {
                    say(at, "next error", next.getSQLState(), next.getMessage());
                }
                if (!connection.getAutoCommit()) { connection.rollback(); connection.setAutoCommit(true); }
            }
        }
        connection.close();
    }

    static void run(int at, Map<?, ?> step) throws Exception {
        String sql = (String) step.get("sql");
        switch ((String) step.get("do")) {
            case "run", "several" -> {
                if (step.containsKey("params")) { executeAll(at, sql, List.of(step.get("params"))); return; }
                try (Statement statement = connection.createStatement()) {
                    try { results(at, statement, statement.execute(sql)); } finally { warnings(at, statement); }
                }
            }
            case "prepared" -> executeAll(at, sql, (List<?>) step.get("runs"));
            case "pipeline" -> batch(at, (List<?>) step.get("steps"));
            case "transaction" -> {
                connection.setAutoCommit(false);
                for (Object one : (List<?>) step.get("steps")) {
                    executeAll(at, (String) ((Map<?, ?>) one).get("sql"), List.of(((Map<?, ?>) one).get("params")));
                }
                if (step.get("end").equals("commit")) connection.commit(); else connection.rollback();
                connection.setAutoCommit(true);
            }
            case "copy_in" -> say(at, "copied",
                connection.unwrap(PGConnection.class).getCopyAPI().copyIn(sql, new StringReader((String) step.get("data"))));
            case "copy_out" -> {
                StringWriter out = new StringWriter();
                say(at, "copied", connection.unwrap(PGConnection.class).getCopyAPI().copyOut(sql, out), out);
            }
            case "fetch" -> {
                connection.setAutoCommit(false);
                try (PreparedStatement statement = connection.prepareStatement(sql)) {
                    statement.setFetchSize(((Number) step.get("size")).intValue());
                    results(at, statement, statement.execute());
                }
                connection.commit();
                connection.setAutoCommit(true);
            }
            case "cancel" -> {
                try (Statement statement = connection.createStatement()) {
                    CompletableFuture<SQLException> ended = CompletableFuture.supplyAsync(() -> {
                        try { statement.execute(sql); return null; } catch (SQLException error) { return error; }
                    });
                    while (statement.getWarnings() == null && !ended.isDone()) Thread.onSpinWait();
                    statement.cancel();
                    SQLException error = ended.get(60, TimeUnit.SECONDS);
                    say(at, "cancelled", error == null ? null : error.getSQLState());
                }
            }
            default -> throw new IllegalStateException("unknown step " + step.get("do"));
        }
    }

    static void executeAll(int at, String sql, List<?> runs) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql.replaceAll("\\$\\d", "?"))) {
            for (Object values : runs) {
                bind(statement, (List<?>) values);
                results(at, statement, statement.execute());
            }
        }
    }

    /** Runs of the same statement travel together. */
    static void batch(int at, List<?> steps) throws SQLException {
        for (int from = 0; from < steps.size(); ) {
            String sql = (String) ((Map<?, ?>) steps.get(from)).get("sql");
            try (PreparedStatement statement = connection.prepareStatement(untagged(sql).replaceAll("\\$\\d", "?"))) {
                int to = from;
                for (; to < steps.size() && untagged((String) ((Map<?, ?>) steps.get(to)).get("sql")).equals(untagged(sql)); to++) {
                    bind(statement, (List<?>) ((Map<?, ?>) steps.get(to)).get("params"));
                    statement.addBatch();
                }
                List<Object> counts = new ArrayList<>();
                for (int count : statement.executeBatch()) counts.add(count);
                say(at, "batch", counts.toArray());
                from = to;
            }
        }
    }

    static String untagged(String sql) { return sql.replaceFirst("^/\\* g\\d+ \\*/ ", ""); }

    static void bind(PreparedStatement statement, List<?> values) throws SQLException {
        for (int at = 0; at < values.size(); at++) {
            Object value = values.get(at);
            if (value == null) statement.setNull(at + 1, Types.VARCHAR);
            else if (value instanceof Number number) statement.setInt(at + 1, number.intValue());
            else if (value instanceof Map<?, ?> map) statement.setBytes(at + 1, HexFormat.of().parseHex((String) map.get("bytes")));
            else statement.setString(at + 1, (String) value);
        }
    }

    static void results(int at, Statement statement, boolean rows) throws SQLException {
        while (true) {
            if (rows) {
                try (ResultSet set = statement.getResultSet()) {
                    while (set.next()) {
                        Object[] cells = new Object[set.getMetaData().getColumnCount()];
                        for (int column = 0; column < cells.length; column++) cells[column] = set.getString(column + 1);
                        say(at, "row", cells);
                    }
                }
            } else if (statement.getUpdateCount() == -1) {
                return;
            } else {
                say(at, "count", statement.getUpdateCount());
            }
            rows = statement.getMoreResults();
        }
    }

    static void warnings(int at, Statement statement) throws SQLException {
        for (SQLWarning warning = statement.getWarnings(); warning != null; warning = warning.getNextWarning()) {
            say(at, "notice", warning.getSQLState(), warning.getMessage());
        }
    }

    static String env(String name) { return System.getenv(name); }

    static void say(int at, String what, Object... values) {
        StringBuilder line = new StringBuilder().append(at).append(' ').append(what);
        for (Object value : values) {
            line.append(" | ").append(value == null ? "NULL" : value.toString().replace("\\", "\\\\").replace("\n", "\\n"));
        }
        byte[] bytes = line.append('\n').toString().getBytes(StandardCharsets.UTF_8);
        System.out.write(bytes, 0, bytes.length);
        System.out.flush();
    }

    /** As much of JSON as the script uses. */
    static final class Json {
        private final String text;
        private int at;

        Json(String text) { this.text = text; }

        Object value() {
            switch (peek()) {
                case '[' -> {
                    List<Object> list = new ArrayList<>();
                    for (at++; peek() != ']'; ) { list.add(value()); if (peek() == ',') at++; }
                    at++;
                    return list;
                }
                case '{' -> {
                    Map<String, Object> map = new LinkedHashMap<>();
                    for (at++; peek() != '}'; ) {
                        String key = (String) value();
                        if (peek() != ':') throw new IllegalStateException("no colon at " + at);
                        at++;
                        map.put(key, value());
                        if (peek() == ',') at++;
                    }
                    at++;
                    return map;
                }
                case '"' -> { return string(); }
                default -> {
                    int from = at;
                    while (at < text.length() && ",]} \n".indexOf(text.charAt(at)) < 0) at++;
                    String word = text.substring(from, at);
                    return switch (word) { case "null" -> null; case "true" -> true; case "false" -> false; default -> Long.valueOf(word); };
                }
            }
        }

        private String string() {
            StringBuilder out = new StringBuilder();
            for (at++; text.charAt(at) != '"'; at++) {
                if (text.charAt(at) != '\\') { out.append(text.charAt(at)); continue; }
                switch (text.charAt(++at)) {
                    case 'n' -> out.append('\n');
                    case 't' -> out.append('\t');
                    case 'u' -> { out.append((char) Integer.parseInt(text.substring(at + 1, at + 5), 16)); at += 4; }
                    default -> out.append(text.charAt(at));
                }
            }
            at++;
            return out.toString();
        }

        private char peek() {
            while (Character.isWhitespace(text.charAt(at))) at++;
            return text.charAt(at);
        }
    }
}
