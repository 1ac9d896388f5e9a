"""How gunicorn serves the web app, where its command line does not say otherwise.

It reads this file from the folder in which it is started.
The settings are described at https://docs.gunicorn.org/en/stable/settings.html.
"""

worker_class = "gthread"
# Seconds. Longer than many clients and proxies keep an idle connection (httpx 5, nginx 60), so that it is they who end
# it: a server that does may do so just as the next request is sent, which is then lost. The price where no proxy is in
# front: a connection on which nothing was ever sent holds up a graceful stop for as long as gunicorn lets it.
keepalive = 75
