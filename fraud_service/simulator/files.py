"""The rows of a simulated world, and files of them."""

class Simulation(NamedTuple):
    """A simulated world, one array element per transaction in event order.

    `columns` are those of the file, in its order; where unknown, `device_id` is None, and a coordinate NaN. `pattern`
    tells what each transaction is in truth.
    """

    columns: dict[str, NDArray[Any]]
    pattern: Bytes


def simulate(world: World) -> Simulation:
    """Draw the transactions of a world, with labels. The same world gives the same rows on every machine."""
    shops = open_shops(world)
    people = settle_people(world, shops)
    genuine = live(world, people, shops)
    rows = Rows.joined(
        skim(world, shops, genuine),
        test_cards(world, people, shops, len(genuine.time)),
        take_over(world, people, shops, len(genuine.time)),
        travel_impossibly(world, people, shops, genuine),
        look_alike(world, people, shops, genuine),
    )
    rows = rows.where((rows.time >= 0) & (rows.time < world.days * DAY))
    rows = rows.where(np.argsort(rows.time, kind="stable"))
    return Simulation(_columns(world, shops, rows), rows.pattern)


def write(world: World, path: Path) -> int:
    """Simulate a world into a .parquet, .csv or .jsonl file that `History.open` reads; give the number of rows.

    Raises
    ------
    ConfigurationError
        When the name ends otherwise, or pyarrow is missing (JSON Lines need none).
    """
    writers = {".parquet": _write_parquet, ".csv": _write_csv, ".jsonl": _write_json_lines}
    writer = writers.get(path.suffix.lower())
    if writer is None:
        raise ConfigurationError(f"{path}: cannot tell the format from the name; it must end in {', '.join(writers)}")
    simulation = simulate(world)
    writer(simulation, path)
    return len(simulation.pattern)


def _columns(world: World, shops: Shops, rows: Rows) -> dict[str, NDArray[Any]]:
    online, fraud = rows.entry == ONLINE, rows.pattern != Pattern.GENUINE
    devices, index = np.unique(rows.device, return_inverse=True)
    delay, source = _labels(world, fraud)
    return {
        "transaction_id": np.array([f"t-{number:09d}" for number in range(len(fraud))]),
        "timestamp": world.start + rows.time,
        "card_id": np.array([f"c-{number:05d}" for number in range(world.cards)])[rows.card],
        "merchant_id": np.array([f"m-{number:04d}" for number in range(world.merchants)])[rows.merchant],
        "amount": np.clip(rows.amount, 0.2, 9_999).round(2),
        "currency": np.full(len(fraud), "EUR"),
        "merchant_category_code": np.array(CATEGORIES)[shops.category[rows.merchant]],
        "country": np.array(COUNTRIES)[shops.country[rows.merchant]],
        "entry_mode": np.array(ENTRY_MODES)[rows.entry],
        "device_id": np.array([None if number < 0 else f"d-{number:08x}" for number in devices], object)[index],
        "latitude": np.where(online, np.nan, shops.latitude[rows.merchant]),
        "longitude": np.where(online, np.nan, shops.longitude[rows.merchant]),
        "is_fraud": fraud,
        "labelled_at": world.start + rows.time + delay,
        "label_source": np.array(_SOURCES)[source],
    }


def _labels(world: World, fraud: Bools) -> tuple[Ints, Ints]:
    """Draw how long (ms) it takes until one knows, and by whom (as index of `_SOURCES`)."""
    who, when = world.draw(_SOURCE).random((len(fraud), 2)).T
    chargeback = np.minimum(5 * DAY * np.exp(0.7 * world.draw(_DELAY).normal(size=len(fraud))), 30 * DAY)
    customer, analyst = HOUR * (2 + 46 * when), MINUTE * (5 + 355 * when)
    source = np.select([~fraud, who < 0.6, who < 0.85], [3, 0, 1], 2)
    return np.choose(source, [chargeback, customer, analyst, np.float64(7 * DAY)]).astype(np.int64), source


def _table(simulation: Simulation) -> Any:
    library = arrow()
    columns = simulation.columns.items()
    return library.table({name: library.array(column, from_pandas=True) for name, column in columns})


def _write_parquet(simulation: Simulation, path: Path) -> None:
    arrow("pyarrow.parquet").write_table(_table(simulation), path)


def _write_csv(simulation: Simulation, path: Path) -> None:
    arrow("pyarrow.csv").write_csv(_table(simulation), path)


def _write_json_lines(simulation: Simulation, path: Path) -> None:
    encode = msgspec.json.Encoder().encode
    names, columns = simulation.columns.keys(), [_known(column) for column in simulation.columns.values()]
    with path.open("wb") as file:
        for values in zip(*columns, strict=True):
            row = zip(names, values, strict=True)  # without what is unknown
            file.write(encode({name: value for name, value in row if value is not None}) + b"\n")


def _known(column: NDArray[Any]) -> list[Any]:
    """Turn a column into Python values, NaN into None."""
    values: list[Any] = column.tolist()
    return [None if math.isnan(value) else value for value in values] if column.dtype.kind == "f" else values
