package kytx.bed;

import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;

/**
 * Nastiness of the service, looked up for every request: shell assignments in the file `knobs` beside the home.
 *
 * READY_MS    the service answers 503 until so long after its start; -1: for ever
 * HTTP        ok; 503; page (an HTML login page with 200); cut (an answer that breaks off); failed (queries answer 200
 *             with isException)
 * ANSWER_MS   every answer takes so long
 */
final class Knobs {
    private final File file;

    Knobs(File home) {
        file = new File(home.getParentFile(), "knobs");
    }

    String text(String name, String otherwise) throws IOException {
        String value = otherwise;
        if (file.exists()) {
            for (String line : Files.readAllLines(file.toPath(), StandardCharsets.UTF_8)) {
                if (line.startsWith(name + "=")) {
                    value = line.substring(name.length() + 1).replace("'", "");
                }
            }
        }
        return value;
    }

    long number(String name) throws IOException {
        return Long.parseLong(text(name, "0"));
    }
}
