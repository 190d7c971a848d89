package kytx.bed;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.NavigableSet;
import org.apache.kylin.common.KylinConfig;
import org.apache.kylin.common.persistence.RawResource;
import org.apache.kylin.common.persistence.ResourceStore;

/** What the service reads from, and writes to, the real metadata store. */
final class Metadata {
    static final ObjectMapper JSON = new ObjectMapper();

    /** A job's state in the store, as the interface calls it, and its number there. */
    private static final List<String> STORED = Arrays.asList("READY", "RUNNING", "SUCCEED", "ERROR", "DISCARDED", "STOPPED");
    private static final List<String> SHOWN = Arrays.asList("PENDING", "RUNNING", "FINISHED", "ERROR", "DISCARDED", "STOPPED");

    private final ResourceStore store = ResourceStore.getStore(KylinConfig.getInstanceFromEnv());

    ArrayNode all(String folder) throws IOException {
        ArrayNode found = JSON.createArrayNode();
        for (String path : names(folder)) {
            found.add(read(path));
        }
        return found;
    }

    /** The jobs whose state is one of these numbers; all of them if there are none. */
    ArrayNode jobs(List<Integer> states) throws IOException {
        ArrayNode found = JSON.createArrayNode();
        for (String path : names("/execute")) {
            String id = path.substring("/execute/".length());
            String stored = read("/execute_output/" + id).path("status").asText("READY");
            int at = STORED.indexOf(stored);
            if (states.isEmpty() || states.contains(1 << at)) {
                ObjectNode job = found.addObject();
                job.put("uuid", id).put("name", read(path).path("name").asText()).put("type", "BUILD");
                job.put("job_status", SHOWN.get(at)).put("progress", "SUCCEED".equals(stored) ? 100.0 : 0.0);
                job.putArray("steps");
            }
        }
        return found;
    }

    void discard(String id) throws IOException {
        ObjectNode output = (ObjectNode) read("/execute_output/" + id);
        write("/execute_output/" + id, output.put("uuid", id).put("status", "DISCARDED"));
    }

    void addProject(String name, String owner) throws IOException {
        ObjectNode project = JSON.createObjectNode();
        project.put("uuid", java.util.UUID.randomUUID().toString()).put("last_modified", 0L);
        project.put("version", "3.0.0.20500").put("name", name).put("owner", owner).put("status", "ENABLED");
        project.putArray("tables");
        project.putArray("realizations");
        project.putObject("override_kylin_properties");
        write("/project/" + name + ".json", project);
    }

    /** What every start of the product writes, and what its first one does. */
    void noteStart() throws IOException {
        ObjectNode groups = JSON.createObjectNode();
        groups.putArray("groups").add("ALL_USERS").add("ROLE_ADMIN");
        write("/user_group", groups);
        if (!store.exists("/user/ADMIN")) {
            write("/user/ADMIN", JSON.createObjectNode().put("username", "ADMIN"));
        }
    }

    private NavigableSet<String> names(String folder) throws IOException {
        NavigableSet<String> names = store.listResources(folder);
        return names == null ? Collections.emptyNavigableSet() : names;
    }

    private JsonNode read(String path) throws IOException {
        RawResource found = store.exists(path) ? store.getResource(path) : null;
        if (found == null) {
            return JSON.createObjectNode();
        }
        try (InputStream content = found.content()) {
            return JSON.readTree(content);
        }
    }

    private void write(String path, JsonNode content) throws IOException {
        store.putResource(path, new ByteArrayInputStream(JSON.writeValueAsBytes(content)), System.currentTimeMillis());
    }
}
