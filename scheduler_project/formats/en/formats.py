"""Times say that they are UTC; what is not here is Django's."""

DATETIME_FORMAT = r"Y-m-d H:i:s \U\T\C"
