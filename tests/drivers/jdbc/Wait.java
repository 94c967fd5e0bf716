// JDBC, with a statement that waits for approval: Wait wait | cancel | leave. Prints "sent" before it waits, then how it came out.
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.Properties;

public class Wait {
    public static void main(String[] arguments) throws Exception {
        Properties properties = new Properties();
        properties.setProperty("user", System.getenv("PGUSER"));
        properties.setProperty("password", System.getenv("PGPASSWORD"));
        properties.setProperty("sslmode", "verify-full");
        properties.setProperty("sslrootcert", System.getenv("PGSSLROOTCERT"));
        String place = System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE");
        try (Connection connection = DriverManager.getConnection("jdbc:postgresql://" + place, properties)) {
            PreparedStatement statement =
                connection.prepareStatement("INSERT INTO journal (id, worker, body) VALUES (?, 0, 'jdbc')");
            statement.setInt(1, 1);
            System.out.println("sent");
            // What waits is ended from outside: a line on standard input says when.
            if (!arguments[0].equals("wait")) {
                Thread ending = new Thread(() -> {
                    try {
                        System.in.read();
                        if (arguments[0].equals("leave")) { Runtime.getRuntime().halt(3); }
                        statement.cancel();
                    } catch (Exception error) { error.printStackTrace(); }
                });
                ending.setDaemon(true);
                ending.start();
            }
            try {
                System.out.println("done INSERT " + statement.executeUpdate());
            } catch (SQLException error) {
                System.out.println("failed " + error.getSQLState());
            }
            ResultSet after = connection.createStatement().executeQuery("SELECT 7");
            after.next();
            System.out.println("after " + after.getInt(1));
        }
    }
}
