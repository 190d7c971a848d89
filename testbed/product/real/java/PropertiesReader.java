package kytx.bed;

import java.io.ByteArrayInputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.BufferedOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;

/**
 * What Java's own Properties makes of files: one after another on standard input, each with its length before it in four
 * bytes and read as UTF-8, as Kylin does. Answers the number of pairs, then each key and value by its length in UTF-8
 * and its bytes, in the order of keys; minus one for a file that Java refuses, minus two for one with half of a
 * surrogate pair in it, which no encoding has.
 */
public final class PropertiesReader {
    public static void main(String[] args) throws IOException {
        DataInputStream in = new DataInputStream(System.in);
        DataOutputStream out = new DataOutputStream(new BufferedOutputStream(System.out));
        for (;;) {
            byte[] file;
            try {
                file = new byte[in.readInt()];
            } catch (EOFException end) {
                return;
            }
            in.readFully(file);
            answer(out, file);
            out.flush();
        }
    }

    private static void answer(DataOutputStream out, byte[] file) throws IOException {
        Properties read = new Properties();
        try {
            read.load(new InputStreamReader(new ByteArrayInputStream(file), StandardCharsets.UTF_8));
        } catch (IllegalArgumentException malformed) {
            out.writeInt(-1);
            return;
        }
        for (Map.Entry<Object, Object> pair : read.entrySet()) {
            String text = pair.getKey() + "\n" + pair.getValue();
            if (!StandardCharsets.UTF_8.newEncoder().canEncode(text)) {
                out.writeInt(-2);
                return;
            }
        }
        out.writeInt(read.size());
        for (Map.Entry<Object, Object> pair : new TreeMap<>(read).entrySet()) {
            for (Object text : new Object[] {pair.getKey(), pair.getValue()}) {
                byte[] bytes = text.toString().getBytes(StandardCharsets.UTF_8);
                out.writeInt(bytes.length);
                out.write(bytes);
            }
        }
    }
}
