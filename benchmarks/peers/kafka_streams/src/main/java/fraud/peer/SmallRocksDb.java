package fraud.peer;

import java.util.Map;
import org.apache.kafka.streams.state.RocksDBConfigSetter;
import org.rocksdb.BlockBasedTableConfig;
import org.rocksdb.Cache;
import org.rocksdb.LRUCache;
import org.rocksdb.Options;

/** One block cache for all partitions, and memtables of the size that the service gives its own. */
public final class SmallRocksDb implements RocksDBConfigSetter {
    private static final Cache CACHE = new LRUCache(64L << 20);
    private static final long MEMTABLE_BYTES = 16L << 20;

    @Override
    public void setConfig(String store, Options options, Map<String, Object> configs) {
        BlockBasedTableConfig table = (BlockBasedTableConfig) options.tableFormatConfig();
        table.setBlockCache(CACHE);
        options.setTableFormatConfig(table);
        options.setWriteBufferSize(MEMTABLE_BYTES);
    }

    @Override
    public void close(String store, Options options) {
        // The cache is shared and lives as long as the process.
    }
}
