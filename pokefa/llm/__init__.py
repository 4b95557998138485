"""Questions to a model about one picture each, answered in JSON that is checked before a stage sees it.

prompt        what a stage asks, and what an answer is
answer_model  what an answer may be: pydantic models, which give the schema too
reading       the one object in the text of an answer
prices        what is known of each model: prices, picture tokens, effort, shutdown
images        pictures as small as the model sees them
rate_limit    requests and tokens per minute, as the server's headers tell them
congestion    fewer requests at once when answers come late
options       the flags of an asking stage
budget        --max-cost: what may still be spent
estimate      --estimate: what a run will cost
client        one call of a server that speaks the Responses or the Chat Completions API
wire          the server's answers, whatever API spoke, as one form
store         every answer that was paid for, on disk before it counts
map_rows      `ask_rows`: a stage's rows asked in parallel, on a budget
batch_api     the same through the Batch API, at half the price
recaps        captions of another try, before they are merged
"""
