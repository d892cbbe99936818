# docker build -t soup . && docker run --rm --user "$(id -u)" -v "$PWD:/work" soup greedy --ckpts 'runs/*/' --val val
FROM python:3.12-slim
ARG EXTRAS=timm,transformers,open-clip,images,parquet,plot
COPY . /src
RUN pip install --no-cache-dir --constraint /src/constraints.txt "/src[$EXTRAS]" && rm -r /src
# Any user may run it, one without a name or a home too: kept scores lie in a folder of /tmp that is then theirs alone.
ENV HOME=/tmp SOUP_CACHE=/tmp/soup/cache PYTHONDONTWRITEBYTECODE=1
WORKDIR /work
ENTRYPOINT ["soup"]
CMD ["--help"]
