from iiot_platform.config.database import connection_url, normalised, shown

URL = "postgresql://me:a%40b@db:5433/plant?sslmode=verify-full&sslrootcert=/etc/ca.pem"


def test_what_libpq_understands_reaches_it_and_its_defaults_can_be_changed() -> None:
    query = connection_url(normalised(f"{URL}&connect_timeout=3"), "iiot").query

    assert query["sslmode"] == "verify-full"
    assert query["sslrootcert"] == "/etc/ca.pem"
    assert query["connect_timeout"] == "3"
    assert query["keepalives_idle"] == "30"


def test_options_of_the_url_stand_before_ours() -> None:
    url = connection_url(normalised(f"{URL}&options=-cwork_mem%3D8MB"), "dagster", "a=1")

    assert url.query["options"] == "-cwork_mem=8MB -csearch_path=dagster -ctimezone=UTC -ca=1"


def test_the_password_stays_what_it_is_and_is_not_shown() -> None:
    database = normalised(URL)

    assert connection_url(database, "iiot").password == "a@b"  # noqa: S105 - of no server
    assert connection_url(database, "iiot").drivername == "postgresql+psycopg2"
    assert normalised(database.get_secret_value()) == database
    assert "***" in shown(database)
    assert "a%40b" not in shown(database)
    assert "a@b" not in shown(database)
