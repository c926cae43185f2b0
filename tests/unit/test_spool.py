from lola.spool import Spool, read_events, spool_path


def test_events_come_back_in_order_with_offsets(tmp_path):
    spool = Spool(tmp_path)
    spool.status("RUNNING")
    spool.metrics(10, {"train/loss": 0.5})
    events = list(read_events(tmp_path))
    assert [event["kind"] for _, event in events] == ["status", "metrics"]
    assert [event["kind"] for _, event in read_events(tmp_path, events[0][0])] == ["metrics"]
    assert events[-1][0] == spool_path(tmp_path).stat().st_size


def test_a_torn_line_is_dropped_and_the_record_goes_on(tmp_path):
    Spool(tmp_path).metrics(1, {"a": 1.0})
    with spool_path(tmp_path).open("a") as file:
        file.write('{"kind": "metr')
    assert len(list(read_events(tmp_path))) == 1
    Spool(tmp_path).metrics(2, {"a": 2.0})
    assert [event["step"] for _, event in read_events(tmp_path)] == [1, 2]


def test_no_record_is_no_events(tmp_path):
    assert list(read_events(tmp_path)) == []
