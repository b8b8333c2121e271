"""Writes with the InfluxDB projects' own clients, one name each: influx_clients.py HOST PORT CLIENT."""

import sys

host, port, client = sys.argv[1], int(sys.argv[2]), sys.argv[3]
url = f"http://{host}:{port}"

if client == "influxdb":
    from influxdb import InfluxDBClient
    from influxdb.exceptions import InfluxDBClientError

    with InfluxDBClient(host, port, database="first", gzip=True) as db:
        db.create_database("first")
        points = [{"measurement": "m", "tags": {"n": str(n)}, "fields": {"f": float(n)}, "time": n} for n in range(1, 101)]
        assert db.write_points(points, time_precision="s")
        assert {"name": "first"} in db.get_list_database()
        assert len(list(db.query("SELECT f FROM m").get_points())) == 100
        try:
            db.write(["m f=1", "rubbish"], {"db": "first"}, 204, "line")
        except InfluxDBClientError as error:
            assert error.code == 400 and "partial write" in error.content, error
        else:
            raise AssertionError("a bad line was taken")
elif client == "influxdb-client":
    from influxdb_client import InfluxDBClient, Point, WritePrecision
    from influxdb_client.client.write_api import SYNCHRONOUS
    from influxdb_client.rest import ApiException

    with InfluxDBClient(url=url, token="any", org="any", enable_gzip=True) as db:
        api = db.write_api(write_options=SYNCHRONOUS)
        points = [Point("m").tag("n", str(n)).field("f", float(n)).time(n, WritePrecision.S) for n in range(1, 101)]
        api.write("second/autogen", record=points, write_precision=WritePrecision.S)
        with db.write_api() as batching:
            batching.write("second", record="m,n=101 f=101 101000000", write_precision=WritePrecision.US)
        try:
            api.write("second", record="rubbish")
        except ApiException as error:
            assert error.status == 400 and "unable to parse" in error.message, error
        else:
            raise AssertionError("a bad line was taken")
elif client == "influxdb3-python":
    from influxdb_client_3 import InfluxDBClient3, Point, WriteOptions, WriteType, write_client_options

    # by the address of version 2, and by that of version 3
    for use_v2_api in (True, False):
        options = WriteOptions(write_type=WriteType.synchronous, use_v2_api=use_v2_api)
        with InfluxDBClient3(
            host=url, token="any", database="third", write_client_options=write_client_options(write_options=options)
        ) as db:
            name = "m" if use_v2_api else "v3"
            db.write([Point(name).tag("n", str(n)).field("f", float(n)).time(n * 10**9) for n in range(1, 101)])
            try:
                db.write("rubbish")
            except Exception as error:
                assert "unable to parse" in str(error), error
            else:
                raise AssertionError("a bad line was taken")
