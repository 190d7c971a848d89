package kytx.bed;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.File;
import java.io.FileWriter;
import java.io.IOException;
import java.io.Writer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.text.SimpleDateFormat;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Date;
import java.util.List;
import javax.servlet.http.HttpServlet;
import javax.servlet.http.HttpServletRequest;
import javax.servlet.http.HttpServletResponse;

/**
 * The service of a home: Tomcat and the metadata are real, the answers are ours. They have Kyligence Enterprise 3's form,
 * or Kylin 3's where VERSION says Apache.
 */
public final class Service extends HttpServlet {
    private static final String ADMIN =
        "Basic " + Base64.getEncoder().encodeToString("ADMIN:KYLIN".getBytes(StandardCharsets.UTF_8));

    private final File home = new File(System.getenv("KYLIN_HOME"));
    private final Knobs knobs = new Knobs(home);
    private final long startedMs = System.currentTimeMillis();
    /** Read once, so that a swap under a running service shows beside the commit, which is not. */
    private String version;
    private boolean bare;
    private volatile Metadata metadata;

    @Override
    public void init() {
        version = first("VERSION");
        bare = version.startsWith("Apache");
        Thread opening = new Thread(this::open, "main");
        opening.setDaemon(true);
        opening.start();
    }

    private void open() {
        try {
            Metadata opened = new Metadata();
            opened.noteStart();
            metadata = opened;
            for (;;) {
                int open = opened.jobs(java.util.Arrays.asList(1, 2, 8, 32)).size();
                int all = opened.jobs(new ArrayList<>()).size();
                log("JobFetcher-42", "Job Fetcher: 0 running, 0 scheduled, 0 actual running, 0 stopped, 0 ready, 0 waiting, "
                    + (all - open) + " succeed, " + open + " error, 0 discarded");
                Thread.sleep(30_000);
            }
        } catch (InterruptedException ended) {
            Thread.currentThread().interrupt();
        } catch (Exception failed) {
            log("main", "the metadata store cannot be opened: " + failed);
        }
    }

    @Override
    protected void service(HttpServletRequest question, HttpServletResponse answer) throws IOException {
        pause(knobs.number("ANSWER_MS"));
        String mode = knobs.text("HTTP", "ok");
        long ready = knobs.number("READY_MS");
        boolean waits = ready < 0 || System.currentTimeMillis() - startedMs < ready;
        String path = question.getPathInfo() == null ? "/" : question.getPathInfo();
        if (mode.equals("cut")) {
            answer.setHeader("Content-Length", "100000");
            answer.flushBuffer();
            throw new IOException("cut as asked");
        } else if (mode.equals("503") || waits || metadata == null) {
            answer.sendError(503);
        } else if (mode.equals("page") || path.equals("/") || path.equals("/index.html")) {
            answer.setContentType("text/html");
            answer.getWriter().write("<html><title>Kylin</title><form action=\"login\"></form></html>");
        } else if (path.equals("/api/admin/version")) {
            ObjectNode data = Metadata.JSON.createObjectNode();
            send(answer, 200, data.put("kylin.version", version).put("kylin.version.commitId", first("commit_SHA1")));
        } else if (question.getHeader("Authorization") == null) {
            answer.sendRedirect("/kylin/login");
        } else if (!ADMIN.equals(question.getHeader("Authorization"))) {
            answer.sendError(401);
        } else if (bare && question.getHeader("Accept").contains("vnd.apache.kylin")) {
            answer.sendError(406);
        } else {
            ask(question, answer, path, mode);
        }
    }

    private void ask(HttpServletRequest question, HttpServletResponse answer, String path, String mode) throws IOException {
        boolean puts = question.getMethod().equals("PUT");
        boolean posts = question.getMethod().equals("POST");
        if (path.equals("/api/projects") && posts) {
            JsonNode body = Metadata.JSON.readTree(question.getInputStream());
            JsonNode project = Metadata.JSON.readTree(body.path("projectDescData").asText());
            metadata.addProject(project.path("name").asText(), "ADMIN");
            succeed(answer, project);
        } else if (path.equals("/api/projects")) {
            ArrayNode projects = metadata.all("/project");
            succeed(answer, bare ? projects : page("projects", projects, 0, projects.size()));
        } else if (path.equals("/api/user/authentication") && posts) {
            ObjectNode user = Metadata.JSON.createObjectNode();
            user.putObject("userDetails").put("username", "ADMIN");
            succeed(answer, user);
        } else if (path.equals("/api/cubes")) {
            ArrayNode cubes = metadata.all("/cube");
            succeed(answer, bare ? cubes : page("cubes", cubes, 0, cubes.size()));
        } else if (path.equals("/api/jobs")) {
            jobs(question, answer);
        } else if (puts && path.startsWith("/api/jobs/") && path.endsWith("/cancel")) {
            metadata.discard(path.substring("/api/jobs/".length(), path.length() - "/cancel".length()));
            succeed(answer, Metadata.JSON.createObjectNode());
        } else if (path.equals("/api/query") && posts) {
            ObjectNode data = Metadata.JSON.createObjectNode();
            data.put("isException", mode.equals("failed"));
            data.putArray("results").addArray().add(String.valueOf(metadata.all("/project").size()));
            succeed(answer, data);
        } else {
            fail(answer, 404, "there is nothing at " + path);
        }
    }

    private void jobs(HttpServletRequest question, HttpServletResponse answer) throws IOException {
        // Kylin 3 has one filter more than the manual of Kyligence Enterprise 3 says.
        String filter = question.getParameter("timeFilter");
        if (filter == null || Integer.parseInt(filter) > (bare ? 5 : 4)) {
            fail(answer, 500, "no such time filter: " + filter);
            return;
        }
        List<Integer> states = new ArrayList<>();
        for (String value : question.getParameterValues("status")) {
            for (String state : value.split(",")) {
                states.add(Integer.valueOf(state));
            }
        }
        ArrayNode jobs = metadata.jobs(states);
        int size = Integer.parseInt(question.getParameter(bare ? "limit" : "pageSize"));
        int offset = Integer.parseInt(question.getParameter(bare ? "offset" : "pageOffset"));
        ObjectNode page = page("jobs", jobs, bare ? offset : offset * size, size);
        succeed(answer, bare ? page.get("jobs") : page);
    }

    private static ObjectNode page(String name, ArrayNode all, int from, int size) {
        ObjectNode page = Metadata.JSON.createObjectNode().put("size", all.size());
        ArrayNode some = page.putArray(name);
        for (int at = from; at < Math.min(all.size(), from + size); at++) {
            some.add(all.get(at));
        }
        return page;
    }

    private void succeed(HttpServletResponse answer, JsonNode data) throws IOException {
        if (bare) {
            send(answer, 200, data);
            return;
        }
        ObjectNode envelope = Metadata.JSON.createObjectNode().put("code", "000").put("msg", "");
        envelope.set("data", data);
        send(answer, 200, envelope);
    }

    private void fail(HttpServletResponse answer, int status, String message) throws IOException {
        send(answer, status, Metadata.JSON.createObjectNode().put("code", "999").put("msg", message));
    }

    private static void send(HttpServletResponse answer, int status, JsonNode body) throws IOException {
        answer.setStatus(status);
        answer.setContentType("application/json;charset=UTF-8");
        answer.getOutputStream().write(Metadata.JSON.writeValueAsBytes(body));
    }

    private String first(String name) {
        try {
            return Files.readAllLines(new File(home, name).toPath(), StandardCharsets.UTF_8).get(0).trim();
        } catch (IOException | IndexOutOfBoundsException absent) {
            return "";
        }
    }

    private void pause(long ms) {
        try {
            Thread.sleep(ms);
        } catch (InterruptedException ended) {
            Thread.currentThread().interrupt();
        }
    }

    private synchronized void log(String thread, String message) {
        String time = new SimpleDateFormat("yyyy-MM-dd HH:mm:ss,SSS").format(new Date());
        try (Writer out = new FileWriter(new File(home, "logs/kylin.log"), true)) {
            out.write(time + " INFO  [" + thread + "] bed.Service:1 : " + message + "\n");
        } catch (IOException gone) {
            // A log that cannot be written stops nobody.
        }
    }
}
