import java.io.*;
import java.net.*;
import java.nio.*;
import java.nio.channels.FileChannel;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;

public class Main {
    public static void main(String[] args) throws Exception {
        if (args.length > 0) {
            List<byte[]> kept = new ArrayList<>();
            while (true) kept.add(new byte[1 << 20]);
        }
        ExecutorService pool = Executors.newFixedThreadPool(8);
        long sum = 0;
        List<Future<Long>> futures = new ArrayList<>();
        for (int i = 0; i < 100; i++) { final long n = i; futures.add(pool.submit(() -> LongStream.range(0, n * 100).sum())); }
        for (Future<Long> future : futures) sum += future.get();
        pool.shutdown();
        System.out.println("pool " + sum + " parallel " + IntStream.range(0, 1000000).parallel().filter(i -> i % 7 == 0).count());
        Path file = Path.of("data");
        Files.write(file, IntStream.range(0, 10000).mapToObj(Integer::toString).collect(Collectors.toList()));
        try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            MappedByteBuffer map = channel.map(FileChannel.MapMode.READ_WRITE, 0, channel.size());
            map.put(0, (byte) 'X');
            map.force();
        }
        System.out.println(Files.readAllLines(file).get(0) + " " + Files.size(file));
        try (ServerSocket server = new ServerSocket(0, 5, InetAddress.getLoopbackAddress())) {
            Thread echo = new Thread(() -> {
                try (Socket client = server.accept()) { client.getInputStream().transferTo(client.getOutputStream()); } catch (IOException error) { System.out.println(error); }
            });
            echo.start();
            try (Socket socket = new Socket(server.getInetAddress(), server.getLocalPort())) {
                socket.getOutputStream().write("through a socket".getBytes());
                socket.shutdownOutput();
                System.out.println(new String(socket.getInputStream().readAllBytes()));
            }
            echo.join();
        }
        Process process = new ProcessBuilder("sh", "-c", "cat; exit 3").start();
        process.getOutputStream().write("through a process".getBytes());
        process.getOutputStream().close();
        System.out.println(new String(process.getInputStream().readAllBytes()) + " " + process.waitFor());
        List<byte[]> garbage = new ArrayList<>();
        for (int i = 0; i < 20000; i++) { garbage.add(new byte[4096]); if (garbage.size() > 1000) garbage.clear(); }
        System.out.println("collected");
        try { Object nothing = args.length == 0 ? null : args; nothing.hashCode(); } catch (NullPointerException error) { System.out.println("null caught"); }
        try { recurse(0); } catch (StackOverflowError error) { System.out.println("stack overflow caught"); }
        ScheduledExecutorService timer = Executors.newScheduledThreadPool(1);
        System.out.println(timer.schedule(() -> "timer", 20, TimeUnit.MILLISECONDS).get());
        timer.shutdownNow();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println("shutdown hook")));
    }

    static int recurse(int depth) { return recurse(depth + 1) + 1; }
}
