"""How Django writes values by itself. Since Django 5 a language's formats go before the settings'."""
